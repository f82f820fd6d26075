"""Checks of photos and masks before they enter a record, on their encoded bytes.

A photo's header is read and its end mark looked for; decoding all of it finds nothing more (bits damaged inside a JPEG
pass every decoder; the archive's checksum sees them). A mask is decoded, since every value must be a class.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from deeplab.data.datasets import Dataset
from deeplab.errors import DataError

_FORMATS = {"JPEG": "jpeg", "PNG": "png"}
_JPEG_END = b"\xff\xd9"
_PNG_END = b"\x00\x00\x00\x00IEND\xaeB\x60\x82"
# What Pillow raises for content that it cannot read; its PNG reader raises SyntaxError.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)


@dataclass(frozen=True)
class EncodedImage:
    """A checked photo or mask: its bytes, ``jpeg`` or ``png``, and its size in pixels."""

    encoded: bytes
    format: str
    height: int
    width: int


def check_photo(encoded: bytes, name: str) -> EncodedImage:
    """Check a photo.

    Args:
        encoded: the file's bytes; JPEG or PNG, whatever the name says.
        name: what messages call the file.

    Raises:
        DataError: if it is neither, damaged or cut short.
    """
    with _opened(encoded, name) as image:
        kind = _FORMATS.get(image.format or "")
        if kind is None:
            raise DataError(f"{name}: a {image.format} file; photos must be JPEG or PNG")
        # Some cameras and tools append zeros or notes behind the end mark, so its absence alone does not condemn.
        if not encoded.rstrip(b"\0").endswith(_JPEG_END if kind == "jpeg" else _PNG_END):
            image.load()
        return EncodedImage(encoded, kind, image.height, image.width)


def check_mask(encoded: bytes, name: str, dataset: Dataset) -> EncodedImage:
    """Check a mask, and bring it into the form that records hold: a PNG whose gray values are the labels.

    A palette PNG is written anew: its indices are the labels, while TensorFlow's decoder would turn them into colours.

    Args:
        encoded: the file's bytes; a PNG with one channel of at most 8 bits.
        name: what messages call the file.
        dataset: tells which values are legal.

    Raises:
        DataError: naming the file and what is wrong, for a bad value with its place.
    """
    with _opened(encoded, name) as image:
        if image.format != "PNG":
            raise DataError(f"{name}: a {image.format} file; masks must be PNG (lossy formats blur label values)")
        if image.mode not in ("L", "P", "1"):
            raise DataError(
                f"{name}: a {_KINDS.get(image.mode, image.mode)} PNG; masks must be 8-bit gray or palette PNG whose "
                "values are class numbers, so map it to them first"
            )
        # Two-valued images read as 0 and 255, which is what TensorFlow's decoder makes of them.
        labels = np.asarray(image.convert("L") if image.mode == "1" else image)
        _check_labels(labels, name, dataset)
        if image.mode == "P":
            encoded = encode_png(labels)
        return EncodedImage(encoded, "png", image.height, image.width)


def check_pair(photo: EncodedImage, mask: EncodedImage, photo_name: str, mask_name: str) -> None:
    """See that a mask has its photo's size.

    Raises:
        DataError: naming both files and sizes.
    """
    if (photo.height, photo.width) != (mask.height, mask.width):
        raise DataError(
            f"{mask_name} is {mask.width}x{mask.height} pixels, its photo {photo_name} {photo.width}x{photo.height}; "
            "the two must be equal"
        )


def decode_labels(encoded: bytes, name: str) -> npt.NDArray[np.uint8]:
    """The labels of a mask in a record's form, as uint8 [height, width].

    Raises:
        DataError: if the bytes are not a PNG of one channel.
    """
    with _opened(encoded, name) as image:
        if image.mode not in ("L", "P"):
            raise DataError(f"{name}: a {_KINDS.get(image.mode, image.mode)} PNG holds no labels")
        return np.asarray(image)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An array uint8 [height, width] or [height, width, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


_KINDS = {
    "RGB": "colour",
    "RGBA": "colour",
    "LA": "gray with transparency",
    "PA": "palette with transparency",
    "I": "16-bit",
    "I;16": "16-bit",
    "I;16B": "16-bit",
}


@contextmanager
def _opened(encoded: bytes, name: str) -> Iterator[Image.Image]:
    if not encoded:
        raise DataError(f"{name}: the file is empty")
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{name}: neither JPEG nor PNG; replace the file") from None
    except _UNREADABLE as error:
        raise DataError(f"{name}: damaged or cut short ({error}); replace the file") from None


def _check_labels(labels: npt.NDArray[np.uint8], name: str, dataset: Dataset) -> None:
    if labels.max(initial=0) < dataset.num_classes:
        return
    illegal = dataset.illegal_labels(labels)
    if illegal.any():
        row, column = (int(index) for index in np.argwhere(illegal)[0])
        raise DataError(
            f"{name}: label value {int(labels[row, column])} at row {row}, column {column}; "
            f"{dataset.name} allows {dataset.allowed_labels}"
        )
