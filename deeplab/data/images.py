"""Checks of photos and masks before they enter a record, on their encoded bytes.

A photo's header is read and its end mark looked for; decoding all of it finds hardly more (bits damaged inside a JPEG
pass every decoder; the archive's checksum sees them). A mask's values are looked at where that is asked for.
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

from deeplab.data.headers import COLOUR, GRAY, PALETTE, Header, read_header, without_palette
from deeplab.data.labels import ColourMap, LabelMap, MaskReading
from deeplab.errors import DataError

# What file endings promise.
_SUFFIXES = {"jpg": "jpeg", "jpeg": "jpeg", "png": "png"}
# What Pillow raises for content that it cannot read; its PNG reader raises SyntaxError.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, zlib.error, struct.error, Image.DecompressionBombError)
_CMYK = 4


@dataclass(frozen=True)
class EncodedImage:
    """A checked photo or mask: its bytes, ``jpeg`` or ``png``, its size in pixels, and what is odd about it."""

    encoded: bytes
    format: str
    height: int
    width: int
    remark: str | None = None


def check_photo(encoded: bytes, name: str, *, decode: bool = False) -> EncodedImage:
    """Check a photo.

    Args:
        encoded: the file's bytes; JPEG or PNG, as its name says.
        name: what messages call the file.
        decode: decode all of it.

    Raises:
        DataError: if it is neither, not what its name says, damaged or cut short.
    """
    header = _header(encoded, name)
    promised = _SUFFIXES.get(name.rpartition(".")[2].lower(), header.format)
    if header.format != promised:
        raise DataError(f"{name}: holds a {header.format.upper()} in spite of its name; rename it, or replace the file")
    # Some cameras and tools append notes behind the end mark, so its absence alone does not condemn.
    if decode or not header.complete:
        with _opened(encoded, name) as image:
            image.load()
    remark = "a CMYK photo, kept; its colours may look odd" if header.channels == _CMYK else None
    return EncodedImage(encoded, header.format, header.height, header.width, remark)


def check_mask(encoded: bytes, name: str, reading: MaskReading, *, values: bool = True) -> EncodedImage:
    """Check a mask, and bring it into the form that records hold: a PNG whose gray values are the labels.

    A gray mask whose values are labels keeps its bytes. A palette's indices are the values, while TensorFlow's decoder
    would turn them into colours. A colour mask is read by its colours, or has three equal channels.

    Args:
        encoded: the file's bytes; a PNG of at most 8 bits a channel.
        name: what messages call the file.
        reading: tells what values or colours stand for.
        values: look at every value; else only where the mask has to be written anew.

    Raises:
        DataError: naming the file and what is wrong, for a bad value with its place.
    """
    header = _header(encoded, name)
    _check_kind(header, name, reading)
    plain = header.depth == 8 and header.colour_type in (GRAY, PALETTE)
    keeps = plain and not isinstance(reading, ColourMap) and reading.keeps_values
    if values or not keeps or not header.complete:
        labels = read_labels(encoded, name, reading)
        if not keeps:
            encoded = encode_png(labels)
    if keeps and header.colour_type == PALETTE:
        encoded = without_palette(encoded)
    return EncodedImage(encoded, "png", header.height, header.width)


def _header(encoded: bytes, name: str) -> Header:
    if not encoded:
        raise DataError(f"{name}: the file is empty; replace it")
    header = read_header(encoded)
    if header is None:
        raise DataError(f"{name}: neither JPEG nor PNG; replace the file")
    return header


def _check_kind(header: Header, name: str, reading: MaskReading) -> None:
    if header.format != "png":
        raise DataError(f"{name}: a JPEG; masks must be PNG, since lossy formats blur label values")
    if header.depth > 8:
        raise DataError(f"{name}: a 16-bit PNG, whose labels TensorFlow would read as 0; save it with 8 bits")
    allowed = (GRAY, PALETTE, COLOUR) if not isinstance(reading, ColourMap) else (GRAY, PALETTE, COLOUR, 6)
    if header.colour_type not in allowed:
        raise DataError(f"{name}: a PNG with transparency; save it as 8-bit gray without")


def read_labels(encoded: bytes, name: str, reading: MaskReading) -> npt.NDArray[np.uint8]:
    """The labels of an encoded mask, uint8 [height, width].

    Raises:
        DataError: naming the file and what is wrong with it or its values.
    """
    return reading.labels(_mask_values(encoded, name, reading), name)


def _mask_values(encoded: bytes, name: str, reading: MaskReading) -> npt.NDArray[np.uint8]:
    """Values uint8 [height, width], or [height, width, 3] where colours are read."""
    with _opened(encoded, name) as image:
        if isinstance(reading, ColourMap):
            return np.asarray(image.convert("RGB"))
        if image.mode != "RGB":
            return _unscaled(np.asarray(image.convert("L") if image.mode == "1" else image), encoded, reading)
        pixels = np.asarray(image)
    gray = pixels[..., 0]
    if (pixels != gray[..., None]).any():
        raise DataError(
            f"{name}: a colour PNG; save the class numbers as 8-bit gray, or describe the colours in a dataset.yaml "
            "(colour_masks: true)"
        )
    return gray


def _unscaled(gray: npt.NDArray[np.uint8], encoded: bytes, reading: LabelMap) -> npt.NDArray[np.uint8]:
    """The values that a PNG of 1, 2 or 4 bits holds; decoders spread them over 0..255.

    Spread values stay where the reading names such a one (``values: {255: 1}`` for masks of two values).
    """
    header = read_header(encoded)
    if header is None or header.colour_type != GRAY or header.depth >= 8:
        return gray
    highest = (1 << header.depth) - 1
    if any(value > highest for value, _ in reading.values):
        return gray
    return gray // np.uint8(255 // highest)


def check_pair(photo: EncodedImage, encoded: bytes, photo_name: str, mask_name: str) -> None:
    """See that an encoded mask has its photo's size.

    Raises:
        DataError: naming both files and sizes, or for a mask without a readable header.
    """
    mask = _header(encoded, mask_name)
    if (photo.height, photo.width) != (mask.height, mask.width):
        raise DataError(
            f"{mask_name} is {mask.width}x{mask.height} pixels, its photo {photo_name} {photo.width}x{photo.height}; "
            "the two must be equal, so replace one of them"
        )


def decode_labels(encoded: bytes, name: str) -> npt.NDArray[np.uint8]:
    """The labels of a mask in a record's form, as uint8 [height, width].

    Raises:
        DataError: if the bytes are not a PNG of one channel.
    """
    with _opened(encoded, name) as image:
        if image.mode not in ("L", "P"):
            raise DataError(f"{name}: a PNG of mode {image.mode} holds no labels")
        return np.asarray(image)


def encode_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An array uint8 [height, width] or [height, width, 3] as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@contextmanager
def _opened(encoded: bytes, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(encoded)) as image:
            yield image
    except UnidentifiedImageError:
        raise DataError(f"{name}: neither JPEG nor PNG; replace the file") from None
    except _UNREADABLE as error:
        raise DataError(f"{name}: damaged or cut short ({error}); replace the file") from None
