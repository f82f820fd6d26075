import struct

import pytest

from deeplab.data.tfrecord import frame, index_records, masked_crc, parse_example, read_records, serialise_example
from deeplab.errors import DataError

_FEATURES = {"image/encoded": bytes(range(256)) * 3, "image/height": 480, "image/format": b"png", "empty": b"", "n": -5}


def _write(path, *payloads):
    path.write_bytes(b"".join(map(frame, payloads)))
    return path


def test_crc_of_a_known_vector():
    # RFC 3720, B.4: CRC-32C of 32 zero bytes is 0x8A9136AA.
    crc = 0x8A9136AA
    assert masked_crc(bytes(32)) == ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def test_example_round_trip():
    assert parse_example(serialise_example(_FEATURES)) == _FEATURES


def test_example_bytes_are_fixed():
    expected = bytes.fromhex("0a1a0a0a0a016112051a030a01030a0c0a016212070a050a03") + b"xyz"
    assert serialise_example({"b": b"xyz", "a": 3}) == expected


def test_example_with_unpacked_integers_and_floats():
    def field(number, content):
        return bytes([number << 3 | 2, len(content)]) + content

    integers = field(1, b"n") + field(2, field(3, b"\x08\x96\x01"))
    floats = field(1, b"f") + field(2, field(2, field(1, struct.pack("<f", 1.5))))
    assert parse_example(field(1, field(1, integers) + field(1, floats))) == {"n": 150}


@pytest.mark.parametrize("payload", [b"\x0a\x05ab", b"\xff", b"\x0d1234", b"not an example"])
def test_nonsense_is_no_example(payload):
    with pytest.raises(DataError, match=r"not a tf\.train\.Example"):
        parse_example(payload)


def test_records_round_trip(tmp_path):
    payloads = [b"", b"a", b"b" * 70_000]
    path = _write(tmp_path / "s", *payloads)
    assert list(read_records(path)) == payloads
    index = index_records(path)
    assert index.dtype == "int64" and index.shape == (3, 2)
    content = path.read_bytes()
    assert [content[start : start + length] for start, length in index] == payloads


def test_empty_file_has_no_records(tmp_path):
    path = _write(tmp_path / "s")
    assert index_records(path).shape == (0, 2)
    assert list(read_records(path)) == []


@pytest.mark.parametrize("cut", [1, 5, 104, 114])
@pytest.mark.parametrize("read", [index_records, lambda path: list(read_records(path))])
def test_a_file_cut_short_is_an_error(tmp_path, cut, read):
    path = _write(tmp_path / "s", b"first", bytes(100))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"s: cut short inside record 1.*convert or fetch"):
        read(path)


def test_a_bad_length_is_an_error(tmp_path):
    path = tmp_path / "s"
    path.write_bytes(b"PNG and so on, no records at all")
    with pytest.raises(DataError, match="no TFRecord file, or damaged at record 0"):
        index_records(path)


def test_a_damaged_payload_is_an_error(tmp_path):
    path = _write(tmp_path / "s", b"first", b"second")
    path.write_bytes(path.read_bytes().replace(b"second", b"secand"))
    with pytest.raises(DataError, match="record 1 is damaged"):
        list(read_records(path))
