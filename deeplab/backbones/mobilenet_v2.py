"""MobileNet v2 (Sandler et al. 2018), up to its last 320-channel block, at any output stride.

Batch norm decay 0.997 and epsilon 0.001, truncated normal 0.09, SAME padding throughout: the original's.
"""

from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones.record import Backbone
from deeplab.backbones.strides import OutputStride
from deeplab.config import ModelConfig
from deeplab.model import layers
from deeplab.model.initializers import truncated_normal

Tensor = Any

# Rows of the paper's table 2: expansion, output channels, repetitions, stride of the first.
_BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_STEM_FILTERS = 32
# Expanded widths are multiples of this whatever the multiplier.
_EXPANSION_DIVISOR = 8


def make_divisible(value: float, divisor: int, minimum: int) -> int:
    """Round to the nearest multiple of ``divisor``, up again where that lost more than a tenth."""
    rounded = max(minimum, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def _width(filters: int, config: ModelConfig) -> int:
    if config.divisible_by is not None:
        return make_divisible(filters * config.depth_multiplier, config.divisible_by, config.divisible_by)
    divisor = 8 if config.depth_multiplier == 1.0 else 1
    return make_divisible(filters * config.depth_multiplier, divisor, divisor)


def build(images: Tensor, config: ModelConfig) -> tuple[Tensor, dict[str, Tensor]]:
    """The variant's ``Backbone.build``. End points: ``layer_N/depthwise_output`` for N from 2 to 18."""
    end_points: dict[str, Tensor] = {}
    convolutions = slim.arg_scope(
        [layers.conv2d, layers.depthwise_conv2d],
        activation_fn=tf.nn.relu6,
        normalizer_fn=layers.batch_norm,
        weights_initializer=truncated_normal(0.09),
    )
    batch_norms = slim.arg_scope([layers.batch_norm], decay=0.997, epsilon=0.001)
    with tf.compat.v1.variable_scope("MobilenetV2"), convolutions, batch_norms:
        net = layers.conv2d(images, _width(_STEM_FILTERS, config), 3, stride=2, scope="Conv")
        strides, layer = OutputStride(config.output_stride, reached=2), 1
        for expansion, filters, repetitions, first_stride in _BLOCKS:
            for repetition in range(repetitions):
                layer += 1
                stride, rate = strides.next(first_stride if repetition == 0 else 1)
                scope = "expanded_conv" if layer == 2 else f"expanded_conv_{layer - 2}"
                net, depthwise = _block(net, expansion, _width(filters, config), stride, rate, scope)
                end_points[f"layer_{layer}/depthwise_output"] = depthwise
    return net, end_points


def _block(net: Tensor, expansion: int, filters: int, stride: int, rate: int, scope: str) -> tuple[Tensor, Tensor]:
    """Expand, filter per channel, project linearly; add the input where shapes allow."""
    channels = int(net.shape[-1])
    expanded = channels if expansion == 1 else make_divisible(channels * expansion, _EXPANSION_DIVISOR, 8)
    with tf.compat.v1.variable_scope(scope):
        hidden = net
        if expanded > channels:
            hidden = layers.conv2d(hidden, expanded, 1, scope="expand")
        depthwise = layers.depthwise_conv2d(hidden, 3, stride=stride, rate=rate, scope="depthwise")
        projected = layers.conv2d(depthwise, filters, 1, activation_fn=None, scope="project")
    if stride == 1 and channels == filters:
        projected += net
    return projected, depthwise


VARIANTS = (
    Backbone(
        name="mobilenet_v2",
        name_scope="MobilenetV2",
        build=build,
        decoder_end_points={
            4: ("layer_4/depthwise_output",),
            8: ("layer_7/depthwise_output",),
            16: ("layer_14/depthwise_output",),
        },
    ),
)
