"""TFRecord files and ``tf.train.Example`` messages, without TensorFlow.

Starting TensorFlow takes seconds and half a gigabyte, and protobuf writes maps in an order of its own in each process.
Here an Example always has the same bytes: features in alphabetical order, integers packed, as protobuf's deterministic
mode writes them. File format: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import google_crc32c
import numpy as np
import numpy.typing as npt

from deeplab.errors import DataError

# A record is: length (uint64), masked crc of the length (uint32), the payload, masked crc of the payload (uint32).
_HEADER = struct.Struct("<QI")
_FOOTER = struct.Struct("<I")
CHECKSUM_SIZE = _FOOTER.size
# Added by the format so that a crc over data that itself holds crcs stays meaningful.
_MASK_DELTA = 0xA282EAD8
# Tags of length-delimited protobuf fields 1, 2 and 3; field 1 and 3 carry bytes_list and int64_list of a Feature.
_FIELD_1, _FIELD_2, _FIELD_3 = b"\x0a", b"\x12", b"\x1a"


def masked_crc(data: bytes) -> int:
    """The checksum that TFRecord files store: CRC-32C, rotated right by 15 bits, plus a constant."""
    return _masked(google_crc32c.value(data))


def _masked(crc: int) -> int:
    return (((crc >> 15) | (crc << 17)) + _MASK_DELTA) & 0xFFFFFFFF


def frame(payload: bytes) -> bytes:
    """A payload as one record of a file."""
    return b"".join(frame_parts([payload]))


def frame_parts(payload: Sequence[bytes]) -> list[bytes]:
    """A payload in parts as one record of a file, in parts too: nothing large is copied."""
    length, crc = struct.pack("<Q", sum(map(len, payload))), 0
    for part in payload:
        crc = google_crc32c.extend(crc, part)
    return [length + _FOOTER.pack(masked_crc(length)), *payload, _FOOTER.pack(_masked(crc))]


def serialise_example(features: Mapping[str, bytes | int]) -> bytes:
    """A ``tf.train.Example`` whose features hold one byte string or one integer (int64) each."""
    return b"".join(example_parts(features))


def example_parts(features: Mapping[str, bytes | int]) -> list[bytes]:
    """The same in parts, in which the byte strings are the given objects."""
    parts: list[bytes] = []
    for name in sorted(features):
        value = features[name]
        if isinstance(value, bytes):
            parts += _bytes_entry(name, len(value)), value
        else:
            parts.append(_integer_entry(name, value))
    return [_FIELD_1 + _varint(sum(map(len, parts))), *parts]


def parse_example(payload: bytes) -> dict[str, bytes | int]:
    """The features of a serialised Example that hold byte strings or integers: the first value of each.

    Raises:
        DataError: if the bytes are not an Example.
    """
    try:
        found: dict[str, bytes | int] = {}
        for features in _values(payload, 1):
            for entry in _values(features, 1):
                feature = next(_values(entry, 2), b"")
                for value in _first_value(feature):
                    found[next(_values(entry, 1), b"").decode()] = value
        return found
    except (IndexError, ValueError):
        raise DataError("a record is not a tf.train.Example; the shards were written by something else") from None


def index_records(path: Path) -> npt.NDArray[np.int64]:
    """Where the payloads of a file are: int64 [records, 2], offset and length in bytes.

    Only the headers are read, and their checksums compared; whoever reads a payload checks it.

    Raises:
        DataError: if the file is cut short or damaged.
    """
    size = path.stat().st_size
    found: list[tuple[int, int]] = []
    with path.open("rb") as file:
        position = 0
        while position < size:
            length = _read_length(file, path, len(found), size)
            found.append((position + _HEADER.size, length))
            position += _HEADER.size + length + _FOOTER.size
            file.seek(position)
    return np.array(found, np.int64).reshape(-1, 2)


def read_records(path: Path) -> Iterator[bytes]:
    """The payloads of a file, in order.

    Raises:
        DataError: if the file is cut short or damaged.
    """
    size = path.stat().st_size
    number = 0
    with path.open("rb") as file:
        while file.tell() < size:
            payload = file.read(_read_length(file, path, number, size))
            if _FOOTER.unpack(file.read(_FOOTER.size))[0] != masked_crc(payload):
                raise DataError(f"{path}: record {number} is damaged (checksum); convert or fetch the shards again")
            yield payload
            number += 1


def _read_length(file: BinaryIO, path: Path, number: int, size: int) -> int:
    """Read a record's header and see that the rest of the record is there; leaves the file at the payload."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise DataError(f"{path}: cut short inside record {number}; convert or fetch the shards again")
    length, crc = _HEADER.unpack(header)
    if masked_crc(header[:8]) != crc:
        raise DataError(f"{path}: no TFRecord file, or damaged at record {number}; convert or fetch the shards again")
    missing = file.tell() + length + _FOOTER.size - size
    if missing > 0:
        raise DataError(
            f"{path}: cut short inside record {number}, {missing} bytes missing; convert or fetch the shards again"
        )
    return int(length)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(tag: bytes, content: bytes) -> bytes:
    return b"".join((tag, _varint(len(content)), content))


def _bytes_entry(name: str, size: int) -> bytes:
    """What stands before a byte string of that size in the map of features."""
    content = _FIELD_1 + _varint(size)
    feature = _FIELD_1 + _varint(len(content) + size) + content
    entry = _named(name) + _FIELD_2 + _varint(len(feature) + size) + feature
    return _FIELD_1 + _varint(len(entry) + size) + entry


@lru_cache(4096)
def _integer_entry(name: str, value: int) -> bytes:
    # Negative integers are written as two's complement of 64 bits.
    feature = _field(_FIELD_3, _field(_FIELD_1, _varint(value & 0xFFFFFFFFFFFFFFFF)))
    return _field(_FIELD_1, _named(name) + _field(_FIELD_2, feature))


@lru_cache
def _named(name: str) -> bytes:
    return _field(_FIELD_1, name.encode())


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if not byte & 0x80:
            return value, position


def _fields(data: bytes) -> Iterator[tuple[int, bytes | int]]:
    """Number and content of each field of a message: bytes, or an integer."""
    position = 0
    while position < len(data):
        tag, position = _read_varint(data, position)
        if tag & 7 == 0:
            number, position = _read_varint(data, position)
            yield tag >> 3, number
            continue
        if tag & 7 != 2:
            raise ValueError("neither an integer nor length-delimited")
        length, position = _read_varint(data, position)
        if position + length > len(data):
            raise ValueError("field reaches beyond its message")
        yield tag >> 3, data[position : position + length]
        position += length


def _values(data: bytes, wanted: int) -> Iterator[bytes]:
    for number, content in _fields(data):
        if number == wanted and isinstance(content, bytes):
            yield content


def _first_value(feature: bytes) -> Iterator[bytes | int]:
    """At most one value of a Feature: none for an empty list or for floats."""
    for kind, content in _fields(feature):
        if not isinstance(content, bytes) or kind not in (1, 3):
            continue
        for _, value in _fields(content):
            if kind == 3:
                number = value if isinstance(value, int) else _read_varint(value, 0)[0]
                yield number - (1 << 64) if number >> 63 else number
            else:
                yield value
            return
