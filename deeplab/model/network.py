"""The whole network: images in, logits per scale or label maps out."""

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones import BACKBONES
from deeplab.config import ModelConfig
from deeplab.model import layers
from deeplab.model.aspp import HEAD_BATCH_NORM, atrous_spatial_pyramid_pooling
from deeplab.model.decoder import refine_by_decoder
from deeplab.model.dense_prediction_cell import dense_prediction_cell
from deeplab.model.initializers import truncated_normal
from deeplab.model.layers import INFERENCE, Mode
from deeplab.model.variables import VariableStore

Tensor = Any
MERGED = "merged_logits"
# Scopes of everything that is not backbone: what fine-tuning on other classes starts afresh.
EXTRA_LAYER_SCOPES = ("logits", "image_pooling", "aspp", "concat_projection", "decoder", "meta_architecture")
SEMANTIC = "semantic"


class Network:
    """A configured network over a variable store.

    Args:
        config: backbone, head and decoder.
        num_classes: channels of the logits, or output name -> channels for several outputs.
        crop_size: height and width of the inputs in pixels; None for inputs of any size.
        store: where the variables live.
    """

    def __init__(
        self,
        config: ModelConfig,
        num_classes: int | Mapping[str, int],
        crop_size: tuple[int, int] | None,
        store: VariableStore,
    ) -> None:
        self.config = config
        self.backbone = BACKBONES[config.model_variant]
        self.outputs = {SEMANTIC: num_classes} if isinstance(num_classes, int) else dict(num_classes)
        self.crop_size = crop_size
        self.store = store

    def logits(self, images: Tensor, mode: Mode = INFERENCE) -> dict[str, dict[str, Tensor]]:
        """Logits of every output and pyramid scale.

        Args:
            images: float32 [batch, height, width, 3], 0..255.
            mode: training or inference.

        Returns:
            output name -> {"merged_logits": [batch, h, w, classes]}, with further entries ``logits_0.50`` and so on
            when there are several scales; h and w are the crop over the decoder's (or backbone's) stride.
        """
        return self._multi_scale_logits(images, self.config.image_pyramid or (1.0,), mode)

    def _multi_scale_logits(self, images: Tensor, scales: Sequence[float], mode: Mode) -> dict[str, dict[str, Tensor]]:
        crop = self._input_size(images)
        stride = min(self.config.decoder_output_stride or (self.config.output_stride,))
        height, width = (layers.scale_dimension(side, max(1.0, *scales) / stride) for side in crop)
        result: dict[str, dict[str, Tensor]] = {name: {} for name in self.outputs}
        for scale in scales:
            scaled = images
            if scale != 1.0:
                scaled = layers.resize_bilinear(images, *(layers.scale_dimension(side, scale) for side in crop))
            for name, logits in self._single_scale_logits(scaled, scale, mode).items():
                key = MERGED if len(scales) == 1 else f"logits_{scale:.2f}"
                result[name][key] = layers.resize_bilinear(logits, height, width)
        if len(scales) > 1:
            merge = tf.reduce_max if self.config.merge_method == "max" else tf.reduce_mean
            for entries in result.values():
                entries[MERGED] = merge(tf.stack(list(entries.values()), axis=4), axis=4)
        return result

    def _input_size(self, images: Tensor) -> tuple[Any, Any]:
        if self.crop_size is not None:
            return self.crop_size
        static, dynamic = images.shape, tf.shape(images)
        return tuple(static[axis] if static[axis] is not None else dynamic[axis] for axis in (1, 2))

    def _single_scale_logits(self, images: Tensor, scale: float, mode: Mode) -> dict[str, Tensor]:
        crop = self._input_size(images)
        if self.crop_size is not None and scale != 1.0:
            crop = tuple(layers.scale_dimension(side, scale) for side in self.crop_size)
        with self.store.scope(), slim.arg_scope(layers.arg_scope(mode, self.store)):
            features, end_points = self.backbone.build(self.backbone.normalize(images), self.config)
            with slim.arg_scope([layers.batch_norm], **HEAD_BATCH_NORM):
                return self._heads(features, end_points, crop, scale)

    def _heads(
        self, features: Tensor, end_points: Mapping[str, Tensor], crop: tuple[Any, Any], scale: float
    ) -> dict[str, Tensor]:
        config = self.config
        if config.aspp_with_batch_norm:
            pooling_crop = crop if self.crop_size is not None else None
            if config.dense_prediction_cell is not None:
                features = dense_prediction_cell(features, config, pooling_crop)
            else:
                features = atrous_spatial_pyramid_pooling(features, config, pooling_crop, scale)
        if config.decoder_output_stride:
            features = refine_by_decoder(features, end_points, crop, config, self.backbone)
        if config.decoder_output_is_logits:
            return {name: tf.identity(features) for name in self.outputs}
        with tf.compat.v1.variable_scope("logits"):
            return {name: self._classifier(features, name, classes) for name, classes in self.outputs.items()}

    def _classifier(self, features: Tensor, name: str, classes: int) -> Tensor:
        """A 1x1 convolution; without ASPP's batch norm, the sum of one dilated convolution per rate (DeepLab v2)."""
        config = self.config
        rates = (1,) if config.aspp_with_batch_norm or not config.atrous_rates else config.atrous_rates
        branches = [
            layers.conv2d(
                features,
                classes,
                config.logits_kernel_size,
                rate=rate,
                activation_fn=None,
                weights_initializer=truncated_normal(0.01),
                scope=f"{name}_{number}" if number else name,
            )
            for number, rate in enumerate(rates)
        ]
        return branches[0] if len(branches) == 1 else tf.add_n(branches)

    def predict(
        self, images: Tensor, scales: Sequence[float] = (1.0,), add_flipped_images: bool = False
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Label maps and probabilities of every output.

        Args:
            images: float32 [batch, height, width, 3], 0..255.
            scales: test-time scales; exactly (1.0,) is the single-scale path, which knows ``image_pyramid``.
            add_flipped_images: average with the mirrored image, on the multi-scale path only.

        Returns:
            output name -> (labels int64 [batch, height, width], probabilities float32 [..., classes]).
        """
        if tuple(scales) == (1.0,):
            return self._predict_single_scale(images)
        return self._predict_multi_scale(images, scales, add_flipped_images)

    def _predict_single_scale(self, images: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        height, width = self._input_size(images)
        predictions = {}
        for name, entries in self.logits(images).items():
            logits = entries[MERGED]
            if self.config.prediction_with_upsampled_logits:
                logits = layers.resize_bilinear(logits, height, width)
                predictions[name] = tf.argmax(logits, 3), tf.nn.softmax(logits)
            else:
                # The kernel takes no int64.
                small = tf.cast(tf.argmax(logits, 3), tf.int32)[..., tf.newaxis]
                labels = tf.cast(layers.resize_nearest(small, height, width), tf.int64)
                predictions[name] = (
                    labels[..., 0],
                    layers.resize_bilinear(tf.nn.softmax(logits), height, width),
                )
        return predictions

    def _predict_multi_scale(
        self, images: Tensor, scales: Sequence[float], add_flipped_images: bool
    ) -> dict[str, tuple[Tensor, Tensor]]:
        """Mean of the probabilities over scales and mirrored passes, and its argmax.

        The original returns softmax(mean) as probabilities, a second softmax; the mean itself is returned here.
        The label map is the same.
        """
        height, width = self._input_size(images)
        passes: dict[str, list[Tensor]] = {name: [] for name in self.outputs}
        for scale in scales:
            for mirrored in (False, True) if add_flipped_images else (False,):
                for name, logits in self.pass_logits(images, scale, mirrored).items():
                    upright = tf.reverse(logits, [2]) if mirrored else logits
                    passes[name].append(tf.nn.softmax(layers.resize_bilinear(upright, height, width)))
        means = {name: tf.reduce_mean(tf.stack(items, axis=4), axis=4) for name, items in passes.items()}
        return {name: (tf.argmax(mean, 3), mean) for name, mean in means.items()}

    def pass_logits(self, images: Tensor, scale: float, mirrored: bool) -> dict[str, Tensor]:
        """Logits of one pass of multi-scale inference; those of a mirrored pass are mirrored too."""
        inputs = tf.reverse(images, [2]) if mirrored else images
        entries = self._multi_scale_logits(inputs, (scale,), INFERENCE)
        return {name: logits[MERGED] for name, logits in entries.items()}
