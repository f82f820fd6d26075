"""A dense prediction cell in place of ASPP (Chen et al. 2018): branches that build on each other, concatenated."""

from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.config import ModelConfig
from deeplab.config.dense_prediction_cell import CellBranch
from deeplab.model import layers
from deeplab.model.initializers import truncated_normal

Tensor = Any
_FILTERS = 256
_KEEP_PROB = 0.9
# The output stride for which a cell's rates are written down.
_NOMINAL_STRIDE = 16


def dense_prediction_cell(features: Tensor, config: ModelConfig, crop_size: tuple[Any, Any] | None) -> Tensor:
    """Apply the configured cell.

    Args:
        features: [batch, height / stride, width / stride, channels].
        config: the cell and the output stride; ``atrous_rates`` and bounded activations do not reach it.
        crop_size: input height and width in pixels; None for any size.

    Returns:
        [batch, height / stride, width / stride, 256].
    """
    outputs: list[Tensor] = []
    convolutions = slim.arg_scope(
        [layers.conv2d, layers.depthwise_conv2d], normalizer_fn=layers.batch_norm, activation_fn=tf.nn.relu
    )
    with tf.compat.v1.variable_scope("meta_architecture"), convolutions:
        for number, branch in enumerate(config.dense_prediction_cell or ()):
            inputs = features if branch.input < 0 else outputs[branch.input]
            apply = _pyramid_pooling if branch.op == "pyramid_pooling" else _convolution
            outputs.append(apply(inputs, branch, config, crop_size, f"branch{number}"))
        merged = layers.dropout(tf.concat(outputs, axis=3), _KEEP_PROB)
        return layers.conv2d(merged, _FILTERS, 1, scope="concat_projection")


def _convolution(
    inputs: Tensor, branch: CellBranch, config: ModelConfig, crop_size: tuple[Any, Any] | None, scope: str
) -> Tensor:
    if branch.kernel == 1:
        return layers.conv2d(inputs, _FILTERS, 1, scope=scope)
    factor = _NOMINAL_STRIDE // config.output_stride
    vertical, horizontal = branch.rate
    net = layers.depthwise_conv2d(
        inputs,
        branch.kernel,
        rate=(vertical * factor, horizontal * factor),
        weights_initializer=truncated_normal(0.33),
        scope=f"{scope}_depthwise",
    )
    return layers.conv2d(net, _FILTERS, 1, weights_initializer=truncated_normal(0.06), scope=f"{scope}_pointwise")


def _pyramid_pooling(
    inputs: Tensor, branch: CellBranch, config: ModelConfig, crop_size: tuple[Any, Any] | None, scope: str
) -> Tensor:
    assert branch.grid_size is not None  # the description's own check
    height, width = (inputs.shape[axis] or tf.shape(inputs)[axis] for axis in (1, 2))
    sides = crop_size or (height * config.output_stride, width * config.output_stride)
    window = [
        layers.scale_dimension(side, 1.0 / (config.output_stride * cells))
        for side, cells in zip(sides, branch.grid_size, strict=True)
    ]
    pooled = tf.nn.avg_pool2d(inputs, window, 1, "VALID")
    return layers.resize_bilinear(layers.conv2d(pooled, _FILTERS, 1, scope=scope), height, width)
