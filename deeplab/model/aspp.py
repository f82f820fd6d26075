"""Atrous spatial pyramid pooling with the image-level feature (DeepLab v3, section 3.3).

Branches are concatenated in the order image pooling, 1x1, then one per rate; rates are used as given.
"""

from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.config import ModelConfig
from deeplab.model import layers

Tensor = Any
Size = tuple[Any, Any] | None
# The original's batch norm constants of every head, and the dropout after the projection.
HEAD_BATCH_NORM = {"decay": 0.9997, "epsilon": 1e-5}
_KEEP_PROB = 0.9


def atrous_spatial_pyramid_pooling(features: Tensor, config: ModelConfig, crop_size: Size, scale: float) -> Tensor:
    """Pool the backbone's features at several fields of view.

    Args:
        features: [batch, height / stride, width / stride, channels].
        config: the head's options.
        crop_size: input height and width in pixels; None pools globally, whatever the input's size.
        scale: factor between the configured crop and this input (an image pyramid's level).

    Returns:
        [batch, height / stride, width / stride, filters].
    """
    activation = tf.nn.relu6 if config.use_bounded_activation else tf.nn.relu
    filters, gate, branches = config.aspp_convs_filters, None, []
    with slim.arg_scope([layers.conv2d, layers.depthwise_conv2d], normalizer_fn=layers.batch_norm):
        with slim.arg_scope([layers.conv2d, layers.depthwise_conv2d], activation_fn=activation):
            if config.add_image_level_feature:
                pooled = _image_level_feature(features, config, crop_size, scale)
                if config.aspp_with_squeeze_and_excitation:
                    gate = pooled
                else:
                    branches.append(pooled)
            branches.append(layers.conv2d(features, filters, 1, scope="aspp0"))
            for number, rate in enumerate(config.atrous_rates or (), start=1):
                branches.append(_atrous_branch(features, config, rate, f"aspp{number}"))
            merged = tf.concat(branches, axis=3)
            if config.aspp_with_concat_projection:
                merged = layers.conv2d(merged, filters, 1, scope="concat_projection")
                merged = layers.dropout(merged, _KEEP_PROB)
    return merged if gate is None else merged * gate


def _atrous_branch(features: Tensor, config: ModelConfig, rate: int, scope: str) -> Tensor:
    if config.aspp_with_separable_conv:
        return layers.split_separable_conv2d(features, config.aspp_convs_filters, 3, rate, scope)
    return layers.conv2d(features, config.aspp_convs_filters, 3, rate=rate, scope=scope)


def _image_level_feature(features: Tensor, config: ModelConfig, crop_size: Size, scale: float) -> Tensor:
    """Average pooling, a 1x1 layer, and a resize back to the features' size.

    Always ReLU, even where the rest of the head is bounded; the gate of squeeze-and-excitation has biases instead
    of batch norm.
    """
    if crop_size is None:
        height, width = tf.shape(features)[1], tf.shape(features)[2]
        pooled = tf.reduce_mean(features, axis=[1, 2], keepdims=True)
    else:
        height, width = (layers.scale_dimension(size, 1.0 / config.output_stride) for size in crop_size)
        pooling_crop = crop_size
        if config.image_pooling_crop_size is not None:
            pooling_crop = tuple(layers.scale_dimension(size, scale) for size in config.image_pooling_crop_size)
        window = [layers.scale_dimension(size, 1.0 / config.output_stride) for size in pooling_crop]
        pooled = tf.nn.avg_pool2d(features, window, config.image_pooling_stride, "VALID")
    normalizer, activation = layers.batch_norm, tf.nn.relu
    if config.aspp_with_squeeze_and_excitation:
        normalizer, activation = None, layers.q_sigmoid if config.image_se_uses_qsigmoid else tf.nn.sigmoid
    pooled = layers.conv2d(
        pooled,
        config.aspp_convs_filters,
        1,
        activation_fn=activation,
        normalizer_fn=normalizer,
        scope="image_pooling",
    )
    return layers.resize_bilinear(pooled, height, width)
