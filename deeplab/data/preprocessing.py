"""From an encoded pair to what the network eats: the original's resize, rescale, pad, crop and flip.

Images are float32 [height, width, 3] in 0..255, labels int32 [height, width, 1]. Every resize aligns corners. Random
choices are a function of a seed, so that a resumed run sees what an unbroken one sees.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab.config import PreprocessingConfig, TrainingConfig
from deeplab.model.layers import resize_bilinear, resize_nearest

Tensor = Any

IMAGE_KEY, LABEL_KEY = "image/encoded", "image/segmentation/class/encoded"
_FEATURES = {
    IMAGE_KEY: tf.io.FixedLenFeature([], tf.string),
    "image/filename": tf.io.FixedLenFeature([], tf.string, default_value=""),
    LABEL_KEY: tf.io.FixedLenFeature([], tf.string, default_value=""),
}


def decode_pair(serialized: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A serialised Example to image uint8 [h, w, 3], label uint8 [h, w, 1] and file name (string scalar).

    Fails with a TensorFlow error where a part is missing, damaged, or of another size; ``diagnosis`` tells which.
    """
    example = tf.io.parse_single_example(serialized, _FEATURES)
    image, label = decode_image(example[IMAGE_KEY]), decode_label(example[LABEL_KEY])
    with tf.control_dependencies([tf.debugging.assert_equal(tf.shape(image)[:2], tf.shape(label)[:2])]):
        return tf.identity(image), label, example["image/filename"]


def decode_image(encoded: Tensor) -> Tensor:
    """JPEG or PNG to uint8 [height, width, 3].

    The bytes, not ``image/format``, tell a JPEG: the original's builders label ADE20K's JPEGs as PNG.
    """
    return tf.cond(
        tf.io.is_jpeg(encoded),
        lambda: tf.io.decode_jpeg(encoded, channels=3),
        lambda: tf.io.decode_png(encoded, channels=3),
    )


def decode_label(encoded: Tensor) -> Tensor:
    """PNG to uint8 [height, width, 1]."""
    return tf.io.decode_png(encoded, channels=1)


def resized_shape(height: Tensor, width: Tensor, config: PreprocessingConfig) -> tuple[Tensor, Tensor]:
    """Size after the original's ``resize_to_range``: float32 arithmetic with floor, int32 results.

    The shorter side becomes ``min_resize_value``; if the longer one then exceeds ``max_resize_value``, the longer
    side becomes that. With ``resize_factor`` the maximum first drops to a multiple plus one, and both sides then
    rise to a multiple plus one.
    """
    sides = tf.cast(tf.stack([height, width]), tf.float32)
    factor, smallest, largest = config.resize_factor, config.min_resize_value, config.largest_side
    size = tf.cast(tf.floor(sides * (float(smallest or 0) / tf.reduce_min(sides))), tf.int32)
    if largest is not None:
        bounded = tf.cast(tf.floor(sides * (float(largest) / tf.reduce_max(sides))), tf.int32)
        size = tf.where(tf.reduce_max(size) > largest, bounded, size)
    if factor is not None:
        size += (factor - (size - 1) % factor) % factor
    return size[0], size[1]


def resize_to_range(image: Tensor, label: Tensor, config: PreprocessingConfig) -> tuple[Tensor, Tensor]:
    """Resize a pair as the flags say; unchanged where they say nothing."""
    if config.min_resize_value is None:
        return image, label
    height, width = resized_shape(tf.shape(image)[0], tf.shape(image)[1], config)
    return _resize_pair(image, label, height, width)


def _resize_pair(image: Tensor, label: Tensor, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
    return (
        resize_bilinear(image[tf.newaxis], height, width)[0],
        resize_nearest(label[tf.newaxis], height, width)[0],
    )


def pad_to(image: Tensor, height: Any, width: Any, value: Any) -> Tensor:
    """Pad at the bottom and right to at least height x width with ``value`` (a scalar or one per channel)."""
    missing_height = tf.maximum(height - tf.shape(image)[0], 0)
    missing_width = tf.maximum(width - tf.shape(image)[1], 0)
    return tf.pad(image - value, [[0, missing_height], [0, missing_width], [0, 0]]) + value


def _random_scale(seed: Tensor, config: TrainingConfig) -> Tensor | None:
    """One of the evenly spaced scales; None where there is only the scale 1."""
    lowest, highest, step = config.min_scale_factor, config.max_scale_factor, config.scale_factor_step_size
    if lowest == highest:
        return None if lowest == 1.0 else tf.constant(lowest)
    if step == 0:
        return tf.random.stateless_uniform([], seed, lowest, highest)
    # A step that does not divide the range gives evenly spaced values all the same, as in the original.
    choices = np.linspace(lowest, highest, int((highest - lowest) / step + 1)).astype(np.float32)
    return tf.gather(choices, tf.random.stateless_uniform([], seed, 0, len(choices), tf.int32))


def augment(
    image: Tensor,
    label: Tensor,
    seed: Tensor,
    config: TrainingConfig,
    padding_pixel: Sequence[float],
    ignore_label: int,
) -> tuple[Tensor, Tensor]:
    """Rescale, pad, crop and flip a pair for training.

    Args:
        image: float32 [height, width, 3].
        label: int32 [height, width, 1].
        seed: int [2]; equal seeds give equal results.
        config: scales and crop.
        padding_pixel: colour around images smaller than the crop.
        ignore_label: label there.

    Returns:
        float32 [crop height, crop width, 3] and int32 [crop height, crop width, 1].
    """
    seeds = tf.random.experimental.stateless_split(seed, 4)
    scale = _random_scale(seeds[0], config)
    if scale is not None:
        size = tf.cast(tf.cast(tf.shape(image)[:2], tf.float32) * scale, tf.int32)
        image, label = _resize_pair(image, label, size[0], size[1])
    height, width = config.train_crop_size
    image = pad_to(image, height, width, tf.constant(padding_pixel, tf.float32))
    label = pad_to(label, height, width, ignore_label)
    room = tf.shape(image)[:2] - [height, width] + 1
    top = tf.random.stateless_uniform([], seeds[1], 0, room[0], tf.int32)
    left = tf.random.stateless_uniform([], seeds[2], 0, room[1], tf.int32)
    image = tf.slice(image, [top, left, 0], [height, width, 3])
    label = tf.slice(label, [top, left, 0], [height, width, 1])
    mirrored = tf.random.stateless_uniform([], seeds[3]) < 0.5
    return tf.cond(mirrored, lambda: (tf.reverse(image, [1]), tf.reverse(label, [1])), lambda: (image, label))
