import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab.data.diagnosis import refuse_damaged
from deeplab.data.preprocessing import IMAGE_KEY, LABEL_KEY
from deeplab.data.records import RecordReader
from deeplab.data.tfrecord import frame, index_records, serialise_example
from deeplab.errors import DataError


def _png(height: int, width: int, channels: int) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((height, width, channels), np.uint8).squeeze()).save(buffer, "PNG")
    return buffer.getvalue()


GOOD = {IMAGE_KEY: _png(6, 8, 3), LABEL_KEY: _png(6, 8, 1)}


def _write(path: Path, *payloads: bytes) -> Path:
    path.write_bytes(b"".join(frame(payload) for payload in payloads))
    return path


def test_records_of_several_files_by_number(tmp_path: Path) -> None:
    shards = [_write(tmp_path / "a", b"1", b"22"), _write(tmp_path / "b"), _write(tmp_path / "c", b"", b"4444")]
    reader = RecordReader(shards)
    assert [reader[number] for number in range(len(reader))] == [b"1", b"22", b"", b"4444"]
    assert reader.where(1) == f"{shards[0]}: record 1"
    assert reader.where(2) == f"{shards[2]}: record 0"


@pytest.mark.parametrize("past_end", [False, True])
def test_a_payload_is_checked_where_it_is_read(tmp_path: Path, past_end: bool) -> None:
    path = _write(tmp_path / "a", b"first", b"second", b"third")
    offset, length = (int(value) for value in index_records(path)[1])
    content = bytearray(path.read_bytes())
    content[offset + (length if past_end else 2)] ^= 1
    path.write_bytes(content)
    reader = RecordReader([path])
    assert (reader[0], reader[2]) == (b"first", b"third")
    with pytest.raises(DataError, match=r"a: record 1 is damaged \(checksum\); convert or fetch"):
        reader[1]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({IMAGE_KEY: GOOD[IMAGE_KEY]}, r"record 1: it has no label map \(image/segmentation/class/encoded\)"),
        ({**GOOD, LABEL_KEY: b""}, "it has no label map"),
        ({LABEL_KEY: GOOD[LABEL_KEY]}, r"it has no photo \(image/encoded\)"),
        ({**GOOD, IMAGE_KEY: 7}, "it has no photo"),
        ({**GOOD, IMAGE_KEY: GOOD[IMAGE_KEY][:40]}, "its photo cannot be decoded"),
        ({**GOOD, LABEL_KEY: b"no image"}, "its label map cannot be decoded"),
        ({**GOOD, LABEL_KEY: _png(6, 7, 1)}, r"its photo has 6x8 pixels \(height x width\), its label map 6x7"),
    ],
)
def test_what_is_wrong_with_a_record(tmp_path: Path, features: dict[str, bytes | int], message: str) -> None:
    reader = RecordReader([_write(tmp_path / "a", serialise_example(GOOD), serialise_example(features))])
    refuse_damaged(reader, [0])
    with pytest.raises(DataError, match=message):
        refuse_damaged(reader, [0, 1])


def test_bytes_that_are_no_example(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a: record 0: a record is not a tf.train.Example"):
        refuse_damaged(RecordReader([_write(tmp_path / "a", b"\xff\xff")]), [0])
