"""TensorBoard event files, written without TensorBoard installed."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import tensorflow as tf

Array = npt.NDArray[Any]


class Summaries:
    """Appends to an event file in a folder."""

    def __init__(self, folder: Path) -> None:
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers under their tags."""
        for tag, value in values.items():
            self._write(step, tag, tf.constant(value, tf.float32), "scalars")
        self._writer.flush()

    def images(self, step: int, tag: str, pictures: Sequence[Array] | Array) -> None:
        """Write pictures, each uint8 [height, width, 3], all of one size."""
        height, width = pictures[0].shape[:2]
        encoded = [tf.io.encode_png(picture) for picture in pictures]
        self._write(step, tag, tf.stack([str(width), str(height), *encoded]), "images")
        self._writer.flush()

    def _write(self, step: int, tag: str, value: tf.Tensor, plugin: str) -> None:
        metadata = tf.compat.v1.SummaryMetadata(plugin_data=tf.compat.v1.SummaryMetadata.PluginData(plugin_name=plugin))
        with self._writer.as_default():
            tf.summary.write(tag, value, step=step, metadata=metadata)

    def close(self) -> None:
        """Close the file."""
        self._writer.close()
