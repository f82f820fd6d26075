"""A model that segments one photo of any size: a frozen graph (ours or the original's) or a checkpoint."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf
from google.protobuf.message import DecodeError
from PIL import Image

from deeplab.config import ExportConfig, ModelDescription
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.errors import CheckpointError, DataError
from deeplab.export.frozen_graph import INPUT_NAME, PREDICTIONS_NAME, build_frozen_graph
from deeplab.model.checkpoint import Checkpoint

Array = npt.NDArray[Any]


class Segmenter:
    """Segments photos one by one.

    Args:
        graph: a frozen DeepLab graph.
        crop_size: the largest height and width, in pixels, that the graph takes; None where it resizes by itself.
    """

    def __init__(self, graph: tf.compat.v1.GraphDef, crop_size: tuple[int, int] | None) -> None:
        self._function = _function(graph)
        self._crop_size = crop_size

    def segment(self, photo: Image.Image) -> Array:
        """Label map uint8 or uint16 [height, width] at the photo's size.

        A photo larger than the graph's crop is scaled down to fit, and its label map scaled back.
        """
        photo = photo.convert("RGB")
        inputs = photo
        if self._crop_size is not None:
            scale = min(self._crop_size[0] / photo.height, self._crop_size[1] / photo.width)
            if scale < 1:
                size = (max(1, int(photo.width * scale)), max(1, int(photo.height * scale)))
                inputs = photo.resize(size, Image.Resampling.BILINEAR)
        try:
            labels = self._function(tf.constant(np.asarray(inputs)[np.newaxis])).numpy()[0]
        except tf.errors.InvalidArgumentError:
            raise DataError(
                f"the model cannot take a photo of {photo.height}x{photo.width} pixels (height x width): after its own "
                "resize it exceeds the crop the graph was exported for; export with a larger --crop_size"
            ) from None
        labels = labels.astype(np.uint8 if labels.max(initial=0) < 256 else np.uint16)
        if inputs.size == photo.size:
            return labels
        return np.asarray(Image.fromarray(labels).resize(photo.size, Image.Resampling.NEAREST))


def _function(graph: tf.compat.v1.GraphDef) -> Callable[[Any], Any]:
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    try:
        feeds, fetches = (wrapped.graph.get_tensor_by_name(f"{name}:0") for name in (INPUT_NAME, PREDICTIONS_NAME))
    except KeyError as error:
        raise CheckpointError(f"not a DeepLab graph: {error.args[0]}") from None
    return wrapped.prune(feeds, fetches)


def read_graph(path: Path) -> tuple[tf.compat.v1.GraphDef, ModelDescription | None]:
    """A frozen graph and the description beside it, if any.

    Raises:
        CheckpointError: if the file is no graph.
    """
    graph = tf.compat.v1.GraphDef()
    try:
        graph.ParseFromString(path.read_bytes())
    except DecodeError:
        raise CheckpointError(f"{path}: not a frozen graph; name a .pb file or a checkpoint") from None
    for beside in (description_beside(path), path.with_name(DESCRIPTION_NAME)):
        if beside.is_file():
            return graph, ModelDescription.read(beside)
    return graph, None


def description_beside(path: Path) -> Path:
    """Where the description of an exported graph is: ``FILE.model.json``."""
    return path.with_name(f"{path.name}.{DESCRIPTION_NAME}")


def from_checkpoint(checkpoint: Checkpoint, config: ExportConfig) -> Segmenter:
    """Freeze a checkpoint in memory."""
    return Segmenter(build_frozen_graph(config, checkpoint.read()), usable_crop(config))


def usable_crop(config: ExportConfig) -> tuple[int, int] | None:
    """The size that photos must fit in, or None where the graph itself resizes them."""
    return None if config.min_resize_value is not None else config.crop_size
