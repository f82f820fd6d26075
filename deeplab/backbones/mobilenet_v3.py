"""MobileNet v3 (Howard et al. 2019), large and small for segmentation, and MobileNet EdgeTPU.

The segmentation forms halve the widths of the last stage. Batch norm decay 0.997 and epsilon 0.001, truncated normal
0.09, SAME padding throughout: the original's. ``divisible_by`` has no effect: widths are multiples of 8.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones.mobilenet_v2 import make_divisible
from deeplab.backbones.record import Backbone
from deeplab.backbones.strides import OutputStride
from deeplab.config import ModelConfig
from deeplab.model import layers
from deeplab.model.initializers import truncated_normal

Tensor = Any
_DIVISOR = 8
# The squeeze of squeeze-and-excitation is this part of the expanded width.
_SQUEEZE = 4


@dataclass(frozen=True)
class _Block:
    """An inverted residual.

    Attributes:
        filters: output channels.
        expansion: factor on the input channels; 1 leaves the expansion out.
        kernel: side of the depthwise (or fused) kernel.
        stride: nominal stride.
        activation: after expansion and depthwise convolution.
        gated: squeeze-and-excitation after the depthwise convolution.
        fused: one full convolution in place of expansion and depthwise convolution.
        residual: add the input where shapes allow.
    """

    filters: int
    expansion: float
    kernel: int = 3
    stride: int = 1
    activation: Callable[[Tensor], Tensor] = tf.nn.relu
    gated: bool = False
    fused: bool = False
    residual: bool = True


@dataclass(frozen=True)
class _Architecture:
    """Stem, blocks and the last 1x1 convolution."""

    scope: str
    stem_filters: int
    blocks: tuple[_Block, ...]
    last_filters: int
    activation: Callable[[Tensor], Tensor]


_swish = partial(_Block, activation=layers.hard_swish)
_LARGE_SEGMENTATION = _Architecture(
    scope="MobilenetV3",
    stem_filters=16,
    blocks=(
        _Block(16, 1),
        _Block(24, 4, stride=2),
        _Block(24, 3),
        _Block(40, 3, kernel=5, stride=2, gated=True),
        _Block(40, 3, kernel=5, gated=True),
        _Block(40, 3, kernel=5, gated=True),
        _swish(80, 6, stride=2),
        _swish(80, 2.5),
        _swish(80, 184 / 80),
        _swish(80, 184 / 80),
        _swish(112, 6, gated=True),
        _swish(112, 6, gated=True),
        _swish(80, 3, kernel=5, stride=2, gated=True),
        _swish(80, 6, kernel=5, gated=True),
        _swish(80, 6, kernel=5, gated=True),
    ),
    last_filters=480,
    activation=layers.hard_swish,
)
_SMALL_SEGMENTATION = _Architecture(
    scope="MobilenetV3",
    stem_filters=16,
    blocks=(
        _Block(16, 1, stride=2, gated=True),
        _Block(24, 72 / 16, stride=2),
        _Block(24, 88 / 24),
        _swish(40, 4, kernel=5, stride=2, gated=True),
        _swish(40, 6, kernel=5, gated=True),
        _swish(40, 6, kernel=5, gated=True),
        _swish(48, 3, kernel=5, gated=True),
        _swish(48, 3, kernel=5, gated=True),
        _swish(48, 3, kernel=5, stride=2, gated=True),
        _swish(48, 6, kernel=5, gated=True),
        _swish(48, 6, kernel=5, gated=True),
    ),
    last_filters=288,
    activation=layers.hard_swish,
)
_EDGETPU = _Architecture(
    scope="MobilenetEdgeTPU",
    stem_filters=32,
    blocks=(
        _Block(16, 1, fused=True),
        _Block(32, 8, stride=2, fused=True),
        *(_Block(32, 4, fused=True),) * 3,
        _Block(48, 8, stride=2, fused=True),
        *(_Block(48, 4, fused=True),) * 3,
        _Block(96, 8, stride=2),
        *(_Block(96, 4),) * 3,
        _Block(96, 8, residual=False),
        *(_Block(96, 4),) * 3,
        _Block(160, 8, kernel=5, stride=2),
        *(_Block(160, 4, kernel=5),) * 3,
        _Block(192, 8),
    ),
    last_filters=1280,
    activation=tf.nn.relu,
)


def build(images: Tensor, config: ModelConfig, *, architecture: _Architecture) -> tuple[Tensor, dict[str, Tensor]]:
    """A variant's ``Backbone.build``. End points: ``layer_N/depthwise_output``, before squeeze-and-excitation."""
    end_points: dict[str, Tensor] = {}
    convolutions = slim.arg_scope(
        [layers.conv2d, layers.depthwise_conv2d],
        normalizer_fn=layers.batch_norm,
        weights_initializer=truncated_normal(0.09),
    )
    batch_norms = slim.arg_scope([layers.batch_norm], decay=0.997, epsilon=0.001)
    with tf.compat.v1.variable_scope(architecture.scope), convolutions, batch_norms:
        filters = _width(architecture.stem_filters, config)
        net = layers.conv2d(images, filters, 3, stride=2, activation_fn=architecture.activation, scope="Conv")
        strides = OutputStride(config.output_stride, reached=2)
        for number, block in enumerate(architecture.blocks):
            stride, rate = strides.next(block.stride)
            if block.fused:
                # As in the original, neither the output stride nor dilation reaches a fused block.
                stride, rate = block.stride, 1
            with tf.compat.v1.variable_scope(f"expanded_conv_{number}" if number else "expanded_conv"):
                net, depthwise = _inverted_residual(net, block, _width(block.filters, config), stride, rate)
            if depthwise is not None:
                end_points[f"layer_{number + 2}/depthwise_output"] = depthwise
        filters = _width(architecture.last_filters, config)
        net = layers.conv2d(net, filters, 1, activation_fn=architecture.activation, scope="Conv_1")
    return net, end_points


def _width(filters: float, config: ModelConfig) -> int:
    return make_divisible(filters * config.depth_multiplier, _DIVISOR, _DIVISOR)


def _inverted_residual(
    inputs: Tensor, block: _Block, filters: int, stride: int, rate: int
) -> tuple[Tensor, Tensor | None]:
    """Expand, filter per channel, gate, project linearly; returns the output and the depthwise output."""
    channels = int(inputs.shape[-1])
    expanded = channels if block.expansion == 1 else make_divisible(channels * block.expansion, _DIVISOR, _DIVISOR)
    net, depthwise = inputs, None
    with slim.arg_scope([layers.conv2d, layers.depthwise_conv2d], activation_fn=block.activation):
        if expanded > channels:
            kernel, expand_stride = (block.kernel, stride) if block.fused else (1, 1)
            net = layers.conv2d(net, expanded, kernel, stride=expand_stride, scope="expand")
        if not block.fused:
            net = depthwise = layers.depthwise_conv2d(net, block.kernel, stride=stride, rate=rate, scope="depthwise")
        if block.gated:
            net *= _gate(net)
        net = layers.conv2d(net, filters, 1, activation_fn=None, scope="project")
    if block.residual and stride == 1 and channels == filters:
        net += inputs
    return net, depthwise


def _gate(net: Tensor) -> Tensor:
    """Squeeze-and-excitation: mean over the picture, two dense layers with biases, [batch, 1, 1, channels] in 0..1."""
    channels = int(net.shape[-1])
    squeezed = make_divisible(channels / _SQUEEZE, _DIVISOR, _DIVISOR)
    pooled = tf.reduce_mean(net, axis=[1, 2], keepdims=True)
    with tf.compat.v1.variable_scope("squeeze_excite"), slim.arg_scope([layers.conv2d], normalizer_fn=None):
        pooled = layers.conv2d(pooled, squeezed, 1, activation_fn=tf.nn.relu, scope="Conv")
        return layers.conv2d(pooled, channels, 1, activation_fn=layers.q_sigmoid, scope="Conv_1")


def _variant(name: str, architecture: _Architecture, **layers_by_stride: int) -> Backbone:
    points = {int(stride.removeprefix("stride_")): layer for stride, layer in layers_by_stride.items()}
    return Backbone(
        name=name,
        name_scope=architecture.scope,
        build=partial(build, architecture=architecture),
        decoder_end_points={stride: (f"layer_{layer}/depthwise_output",) for stride, layer in points.items()},
    )


VARIANTS = (
    _variant("mobilenet_v3_large_seg", _LARGE_SEGMENTATION, stride_4=4, stride_8=7, stride_16=13),
    _variant("mobilenet_v3_small_seg", _SMALL_SEGMENTATION, stride_4=2, stride_8=4, stride_16=9),
    _variant("mobilenet_edgetpu", _EDGETPU),
)
