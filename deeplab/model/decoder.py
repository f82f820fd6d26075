"""The decoder of DeepLab v3+: low-level features refine the head's output, stride by stride."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones import Backbone
from deeplab.config import ModelConfig
from deeplab.model import layers

Tensor = Any
# Channels of the projected low-level features (DeepLab v3+, table 1).
_PROJECTION_FILTERS = 48


def refine_by_decoder(
    features: Tensor,
    end_points: Mapping[str, Tensor],
    crop_size: tuple[Any, Any],
    config: ModelConfig,
    backbone: Backbone,
) -> Tensor:
    """Merge low-level features into the head's output.

    Args:
        features: [batch, height / output stride, width / output stride, channels].
        end_points: the backbone's.
        crop_size: input height and width, pixels.
        config: the decoder's options.
        backbone: tells which end point has which stride.

    Returns:
        [batch, height / stride, width / stride, decoder filters] for the smallest decoder stride.
    """
    activation = tf.nn.relu6 if config.use_bounded_activation else tf.nn.relu
    normalizer = layers.batch_norm
    if config.decoder_output_is_logits:
        activation, normalizer = None, None
    convolutions = slim.arg_scope(
        [layers.conv2d, layers.depthwise_conv2d], activation_fn=activation, normalizer_fn=normalizer
    )
    with tf.compat.v1.variable_scope("decoder"), convolutions:
        for stage, stride in enumerate(config.decoder_output_stride or ()):
            low_level = [end_points[name] for name in backbone.decoder_end_points[stride]]
            size = tuple(layers.scale_dimension(side, 1.0 / stride) for side in crop_size)
            features = _stage(features, low_level, size, config, f"_{stage}" if stage else "")
    return features


def _stage(
    features: Tensor, low_level: list[Tensor], size: tuple[Any, Any], config: ModelConfig, suffix: str
) -> Tensor:
    filters = config.decoder_filters if config.decoder_use_sum_merge else _PROJECTION_FILTERS
    projected = [
        layers.conv2d(feature, filters, 1, scope=f"feature_projection{number}{suffix}")
        for number, feature in enumerate(low_level)
    ]
    merged = [layers.resize_bilinear(feature, *size) for feature in (features, *projected)]
    if config.decoder_use_sum_merge:
        return _sum_merge(merged, config, suffix)
    return _concat_merge(merged, config, suffix)


def _concat_merge(features: list[Tensor], config: ModelConfig, suffix: str) -> Tensor:
    net, filters = tf.concat(features, axis=3), config.decoder_filters
    if config.decoder_use_separable_conv and not config.decoder_output_is_logits:
        for number in range(2):
            net = layers.split_separable_conv2d(net, filters, 3, 1, f"decoder_conv{number}{suffix}")
        return net
    return slim.repeat(net, 2, layers.conv2d, filters, 3, scope=f"decoder_conv0{suffix}")


def _sum_merge(features: list[Tensor], config: ModelConfig, suffix: str) -> Tensor:
    deep, filters = features[0], config.decoder_filters
    if config.decoder_output_is_logits:
        net = layers.conv2d(deep, filters, 1, scope=f"decoder_conv0{suffix}")
    elif config.decoder_use_separable_conv:
        net = layers.split_separable_conv2d(deep, filters, 3, 1, f"decoder_split_sep_conv0{suffix}")
    else:
        net = layers.conv2d(deep, filters, 3, scope=f"decoder_conv0{suffix}")
    return tf.add_n([net, *features[1:]])
