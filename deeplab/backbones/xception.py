"""Modified aligned Xception (Chollet 2017; DeepLab v3+, figure 4): 41, 65 and 71 layers.

Batch norm decay 0.9997 and epsilon 0.001, truncated normal 0.09: the original's. Depthwise kernels are not
regularised.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones.record import Backbone
from deeplab.backbones.strides import OutputStride
from deeplab.config import ModelConfig
from deeplab.model import layers
from deeplab.model.initializers import truncated_normal

Tensor = Any
# Bounded activations keep values in this range.
_CLIP = 6.0


@dataclass(frozen=True)
class _Block:
    """A run of equal modules.

    Attributes:
        scope: its name below the network's.
        depths: channels of the three separable convolutions.
        skip: ``conv`` (a strided 1x1 shortcut), ``sum`` (the identity) or ``none``.
        stride: of the third separable convolution.
        units: repetitions.
        inner_activation: activations after depthwise and pointwise steps instead of before each separable one.
    """

    scope: str
    depths: tuple[int, int, int]
    skip: str
    stride: int
    units: int = 1
    inner_activation: bool = False


def _entry(number: int, depth: int, stride: int = 2) -> _Block:
    return _Block(f"entry_flow/block{number}", (depth, depth, depth), "conv", stride)


def _middle_and_exit(units: int) -> tuple[_Block, ...]:
    return (
        _Block("middle_flow/block1", (728, 728, 728), "sum", 1, units),
        _Block("exit_flow/block1", (728, 1024, 1024), "conv", 2),
        _Block("exit_flow/block2", (1536, 1536, 2048), "none", 1, inner_activation=True),
    )


_SHALLOW_ENTRY = (_entry(1, 128), _entry(2, 256), _entry(3, 728))
_DEEP_ENTRY = (_entry(1, 128), _entry(2, 256, 1), _entry(3, 256), _entry(4, 728, 1), _entry(5, 728))
_BLOCKS = {
    "xception_41": (*_SHALLOW_ENTRY, *_middle_and_exit(8)),
    "xception_65": (*_SHALLOW_ENTRY, *_middle_and_exit(16)),
    "xception_71": (*_DEEP_ENTRY, *_middle_and_exit(16)),
}


def build(images: Tensor, config: ModelConfig, *, name: str) -> tuple[Tensor, dict[str, Tensor]]:
    """A variant's ``Backbone.build``. End points: every separable convolution's pointwise output."""
    end_points: dict[str, Tensor] = {}
    activation = tf.nn.relu6 if config.use_bounded_activation else tf.nn.relu
    convolutions = slim.arg_scope(
        [layers.conv2d, layers.depthwise_conv2d],
        activation_fn=activation,
        normalizer_fn=layers.batch_norm,
        weights_initializer=truncated_normal(0.09),
    )
    batch_norms = slim.arg_scope([layers.batch_norm], decay=0.9997, epsilon=0.001)
    with tf.compat.v1.variable_scope(name), convolutions, batch_norms:
        net = layers.conv2d_same(images, 32, 3, stride=2, scope="entry_flow/conv1_1")
        net = layers.conv2d_same(net, 64, 3, stride=1, scope="entry_flow/conv1_2")
        strides = OutputStride(config.output_stride, reached=2)
        for block in _BLOCKS[name]:
            for unit in range(1, block.units + 1):
                stride, rate = strides.next(block.stride)
                scope = f"{block.scope}/unit_{unit}/xception_module"
                rates = [rate * factor for factor in _unit_rates(block, config)]
                with tf.compat.v1.variable_scope(scope):
                    net, pointwise = _module(net, block, stride, rates, config.use_bounded_activation)
                end_points.update({f"{scope}/{key}": value for key, value in pointwise.items()})
    return net, end_points


def _unit_rates(block: _Block, config: ModelConfig) -> tuple[int, ...]:
    """Extra dilation of a module's three convolutions: ``multi_grid`` in the last block, else none."""
    if block.scope != "exit_flow/block2" or config.multi_grid is None:
        return (1, 1, 1)
    return config.multi_grid


def _module(
    inputs: Tensor, block: _Block, stride: int, rates: Sequence[int], bounded: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """Three separable convolutions and the skip connection; returns the output and the pointwise outputs."""
    activation = tf.nn.relu6 if bounded else tf.nn.relu
    net, pointwise = inputs, {}
    for number, (depth, rate) in enumerate(zip(block.depths, rates, strict=True), start=1):
        scope = f"separable_conv{number}"
        if not block.inner_activation:
            net = activation(net)
        inner = activation if block.inner_activation else (_clip if bounded else None)
        with slim.arg_scope([layers.conv2d, layers.depthwise_conv2d], activation_fn=inner):
            net = _separable(net, depth, stride if number == 3 else 1, rate, scope, explicit_padding=not bounded)
        pointwise[f"{scope}_pointwise"] = net
    if block.skip == "none":
        return net, pointwise
    shortcut = inputs
    if block.skip == "conv":
        shortcut = layers.conv2d(inputs, block.depths[-1], 1, stride=stride, activation_fn=None, scope="shortcut")
    if bounded:
        return tf.nn.relu6(_clip(net) + _clip(shortcut)), pointwise
    return net + shortcut, pointwise


def _separable(net: Tensor, depth: int, stride: int, rate: int, scope: str, *, explicit_padding: bool) -> Tensor:
    padding = "SAME"
    if stride > 1 and explicit_padding:
        net, padding = layers.fixed_padding(net, 3, rate), "VALID"
    net = layers.depthwise_conv2d(net, 3, stride=stride, rate=rate, padding=padding, scope=f"{scope}_depthwise")
    return layers.conv2d(net, depth, 1, scope=f"{scope}_pointwise")


def _clip(inputs: Tensor) -> Tensor:
    return tf.clip_by_value(inputs, -_CLIP, _CLIP)


def _variant(name: str, stride_4: int, stride_8: int) -> Backbone:
    """A variant, with the entry flow's blocks that hold its decoder end points."""
    end_point = "{}/unit_1/xception_module/separable_conv2_pointwise"
    return Backbone(
        name=name,
        name_scope=name,
        build=partial(build, name=name),
        decoder_end_points={
            4: (end_point.format(f"entry_flow/block{stride_4}"),),
            8: (end_point.format(f"entry_flow/block{stride_8}"),),
            16: (end_point.format("exit_flow/block1"),),
        },
    )


VARIANTS = (_variant("xception_41", 2, 3), _variant("xception_65", 2, 3), _variant("xception_71", 3, 5))
