"""Which record a failing input pipeline stumbled over, and why, in a sentence instead of TensorFlow's traceback."""

from collections.abc import Iterable

import tensorflow as tf

from deeplab.data.preprocessing import IMAGE_KEY, LABEL_KEY, decode_image, decode_label
from deeplab.data.records import RecordReader
from deeplab.data.tfrecord import parse_example
from deeplab.errors import DataError


def refuse_damaged(reader: RecordReader, numbers: Iterable[int]) -> None:
    """Look at the records that a pipeline was reading when it failed; return if nothing is wrong with them.

    Raises:
        DataError: naming file and record.
    """
    for number in numbers:
        payload, where = reader[number], reader.where(number)
        try:
            _check(payload)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None


def _check(payload: bytes) -> None:
    example = parse_example(payload)
    sizes = []
    for what, key, decode in (("photo", IMAGE_KEY, decode_image), ("label map", LABEL_KEY, decode_label)):
        encoded = example.get(key)
        if not isinstance(encoded, bytes) or not encoded:
            raise DataError(f"it has no {what} ({key}); convert the data again, photos together with their masks")
        try:
            sizes.append(tuple(decode(tf.constant(encoded)).shape[:2]))
        except tf.errors.OpError:
            raise DataError(f"its {what} cannot be decoded; replace the image and convert the data again") from None
    if sizes[0] != sizes[1]:
        (height, width), (label_height, label_width) = sizes
        raise DataError(
            f"its photo has {height}x{width} pixels (height x width), its label map {label_height}x{label_width}; "
            "convert the data again"
        )
