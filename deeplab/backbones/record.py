"""What the rest of the product knows of a backbone variant: one record, defined next to its code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from deeplab.config import ModelConfig

Tensor = Any
# ImageNet's mean pixel, red green blue, as the original's ResNets subtract it.
MEAN_RGB = (123.15, 115.90, 103.06)


def minus_one_to_one(images: Tensor) -> Tensor:
    """0..255 to -1..1."""
    return (2.0 / 255.0) * images - 1.0


def subtract_mean(images: Tensor) -> Tensor:
    """0..255 minus the ImageNet mean."""
    return images - tf.reshape(tf.constant(MEAN_RGB), [1, 1, 1, 3])


@dataclass(frozen=True)
class Backbone:
    """One variant.

    Attributes:
        name: the value of ``model_variant``.
        name_scope: scope of its variables.
        build: (normalised images [batch, height, width, 3], configuration) -> (features [batch, height / stride,
            width / stride, channels], end points by name). Runs inside ``layers.arg_scope``.
        decoder_end_points: stride -> names of the end points that a decoder merges there.
        normalize: images 0..255 to what ``build`` expects.
        padding_pixel: colour (0..255) that becomes about zero after ``normalize``.
    """

    name: str
    name_scope: str
    build: Callable[[Tensor, ModelConfig], tuple[Tensor, dict[str, Tensor]]]
    decoder_end_points: Mapping[int, tuple[str, ...]]
    normalize: Callable[[Tensor], Tensor] = minus_one_to_one
    padding_pixel: tuple[float, float, float] = (127.5, 127.5, 127.5)
