"""A checkpoint ready to predict: a compiled function from a batch of crops to label maps."""

from collections.abc import Sequence
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from deeplab.backbones import Backbone
from deeplab.config import ModelConfig
from deeplab.model.checkpoint import Checkpoint
from deeplab.model.network import SEMANTIC, Network
from deeplab.model.variables import ConstantStore

Array = npt.NDArray[Any]


class Predictor:
    """Runs a network at one input size.

    Args:
        network: over a store that holds its values.
        scales: test-time scales.
        add_flipped_images: mirrored passes too.
    """

    def __init__(self, network: Network, scales: Sequence[float], add_flipped_images: bool) -> None:
        self.backbone: Backbone = network.backbone
        size = network.crop_size or (None, None)
        function = tf.function(
            lambda images: network.predict(images, scales, add_flipped_images)[SEMANTIC][0], autograph=False
        )
        self._function = function.get_concrete_function(tf.TensorSpec([None, *size, 3], tf.float32))

    def labels(self, images: Array) -> Array:
        """float32 [batch, height, width, 3] in 0..255 to int64 [batch, height, width]."""
        return self._function(tf.constant(images)).numpy()


def make_predictor(
    config: ModelConfig,
    checkpoint: Checkpoint,
    num_classes: int,
    crop_size: tuple[int, int] | None,
    *,
    scales: Sequence[float] = (1.0,),
    add_flipped_images: bool = False,
) -> Predictor:
    """Build the configured network on a checkpoint's values.

    Raises:
        CheckpointError: if a variable is missing there or has another shape.
    """
    store = ConstantStore(checkpoint.read())
    predictor = Predictor(Network(config, num_classes, crop_size, store), scales, add_flipped_images)
    store.refuse_unused()
    return predictor
