"""ResNet v1 (He et al. 2016) with 18, 50 and 101 layers; ``_beta`` has three 3x3 convolutions as its stem.

The stride of a block sits in its last unit. Batch norm decay 0.95 and epsilon 1e-5: the original's.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones.record import MEAN_RGB, Backbone, minus_one_to_one, subtract_mean
from deeplab.backbones.strides import OutputStride
from deeplab.config import ModelConfig
from deeplab.model import layers
from deeplab.model.initializers import variance_scaling

Tensor = Any
# Layers -> units of the four blocks. Base depths are 64, 128, 256, 512, nominal strides 2, 2, 2, 1.
_UNITS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
_BASE_DEPTHS = (64, 128, 256, 512)
_STRIDES = (2, 2, 2, 1)
_BETA_STEM = {18: (16, 16, 32), 50: (64, 64, 128), 101: (64, 64, 128)}
# The stem and its pooling.
_STEM_STRIDE = 4


def build(
    images: Tensor, config: ModelConfig, *, number_of_layers: int, beta: bool
) -> tuple[Tensor, dict[str, Tensor]]:
    """A variant's ``Backbone.build``. End points: the last convolution of every unit, before the addition."""
    end_points: dict[str, Tensor] = {}
    convolutions = slim.arg_scope(
        [layers.conv2d],
        activation_fn=tf.nn.relu,
        normalizer_fn=layers.batch_norm,
        weights_initializer=variance_scaling(),
    )
    batch_norms = slim.arg_scope([layers.batch_norm], decay=0.95, epsilon=1e-5)
    unit = _lite_bottleneck if number_of_layers == 18 else _bottleneck
    with tf.compat.v1.variable_scope(f"resnet_v1_{number_of_layers}"), convolutions, batch_norms:
        net = _stem(images, _BETA_STEM[number_of_layers] if beta else None)
        strides = OutputStride(config.output_stride, reached=_STEM_STRIDE)
        for block, units in enumerate(_UNITS[number_of_layers], start=1):
            unit_rates = _unit_rates(block, units, config)
            for number in range(1, units + 1):
                stride, rate = strides.next(_STRIDES[block - 1] if number == units else 1)
                with tf.compat.v1.variable_scope(f"block{block}/unit_{number}"):
                    net, residual = unit(net, _BASE_DEPTHS[block - 1], stride, rate * unit_rates[number - 1])
                name = "lite_bottleneck_v1/conv2" if number_of_layers == 18 else "bottleneck_v1/conv3"
                end_points[f"block{block}/unit_{number}/{name}"] = residual
    return net, end_points


def _unit_rates(block: int, units: int, config: ModelConfig) -> tuple[int, ...]:
    """Extra dilation per unit: ``multi_grid`` in the last block, else none."""
    if block != len(_BASE_DEPTHS) or config.multi_grid is None:
        return (1,) * units
    return config.multi_grid


def _stem(images: Tensor, beta: tuple[int, ...] | None) -> Tensor:
    """Stride 4: one 7x7 convolution or three 3x3 ones, then pooling."""
    if beta is None:
        net = layers.conv2d_same(images, 64, 7, stride=2, scope="conv1")
    else:
        net = images
        for number, filters in enumerate(beta, start=1):
            net = layers.conv2d_same(net, filters, 3, stride=2 if number == 1 else 1, scope=f"conv1_{number}")
    return tf.nn.max_pool2d(net, 3, 2, "SAME")


def _bottleneck(inputs: Tensor, base_depth: int, stride: int, rate: int) -> tuple[Tensor, Tensor]:
    """1x1, 3x3, 1x1 to four times the depth; returns the output and the residual before the addition."""

    def residual() -> Tensor:
        net = layers.conv2d(inputs, base_depth, 1, scope="conv1")
        net = layers.conv2d_same(net, base_depth, 3, stride=stride, rate=rate, scope="conv2")
        return layers.conv2d(net, 4 * base_depth, 1, activation_fn=None, scope="conv3")

    return _residual_unit(inputs, 4 * base_depth, stride, residual, "bottleneck_v1")


def _lite_bottleneck(inputs: Tensor, base_depth: int, stride: int, rate: int) -> tuple[Tensor, Tensor]:
    """Two 3x3 convolutions, the stride in the second."""

    def residual() -> Tensor:
        net = layers.conv2d_same(inputs, base_depth, 3, stride=1, rate=rate, scope="conv1")
        with slim.arg_scope([layers.conv2d], activation_fn=None):
            return layers.conv2d_same(net, base_depth, 3, stride=stride, rate=rate, scope="conv2")

    return _residual_unit(inputs, base_depth, stride, residual, "lite_bottleneck_v1")


def _residual_unit(
    inputs: Tensor, depth: int, stride: int, residual: Callable[[], Tensor], scope: str
) -> tuple[Tensor, Tensor]:
    with tf.compat.v1.variable_scope(scope):
        if int(inputs.shape[-1]) == depth:
            shortcut = inputs if stride == 1 else tf.nn.max_pool2d(inputs, 1, stride, "SAME")
        else:
            shortcut = layers.conv2d(inputs, depth, 1, stride=stride, activation_fn=None, scope="shortcut")
        branch = residual()
    return tf.nn.relu(shortcut + branch), branch


def _variant(number_of_layers: int, *, beta: bool) -> Backbone:
    units = _UNITS[number_of_layers]
    name = "lite_bottleneck_v1/conv2" if number_of_layers == 18 else "bottleneck_v1/conv3"
    # The unit before the strided one is the last at its resolution.
    points = {4 * 2**block: (f"block{block + 1}/unit_{units[block] - 1}/{name}",) for block in range(3)}
    # The original pads ResNet-18 with grey although it subtracts the mean; no published weights depend on it, but its
    # recorded preprocessing does.
    padded_with_mean = not beta and number_of_layers != 18
    return Backbone(
        name=f"resnet_v1_{number_of_layers}" + ("_beta" if beta else ""),
        name_scope=f"resnet_v1_{number_of_layers}",
        build=partial(build, number_of_layers=number_of_layers, beta=beta),
        decoder_end_points=points,
        normalize=minus_one_to_one if beta else subtract_mean,
        padding_pixel=MEAN_RGB if padded_with_mean else (127.5, 127.5, 127.5),
    )


VARIANTS = tuple(_variant(number, beta=beta) for number in _UNITS for beta in (False, True))
