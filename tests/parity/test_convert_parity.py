"""Conversion against what the original's builder made of the same files.

Deliberate differences: ``image/filename`` is a base name instead of the path on the command line, ``image/format``
tells what the photo is instead of repeating a flag, and the order within a split is a seeded one.
"""

import hashlib
import json
from pathlib import Path, PurePosixPath

import pytest

from deeplab.data import convert
from deeplab.data.shards import list_shards
from deeplab.data.tfrecord import frame, index_records, parse_example, read_records, serialise_example

pytestmark = pytest.mark.parity

_BY_DESIGN = ("image/filename", "image/format")


@pytest.fixture(scope="module")
def converted(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("converted")
    tree = goldens / "data" / "trees" / "ADEChallengeData2016"
    convert.run({"dataset": "ade20k", "source": str(tree), "output_dir": str(folder)})
    return folder


def _by_name(folder: Path, split: str) -> dict[str, dict[str, bytes | int]]:
    examples = [parse_example(record) for shard in list_shards(folder, split) for record in read_records(shard)]
    return {PurePosixPath(example["image/filename"].decode()).name: example for example in examples}


def _recorded(goldens: Path) -> dict:
    return next(
        entry for entry in json.loads((goldens / "data" / "builders.json").read_text()) if entry["id"] == "ade20k"
    )


@pytest.mark.parametrize("split", ["train", "val"])
def test_records_are_the_originals(goldens, converted, split):
    theirs, ours = _by_name(goldens / "data" / "tfrecords" / "ade20k", split), _by_name(converted, split)
    assert ours.keys() == theirs.keys() and ours
    for name, example in ours.items():
        assert example["image/filename"].decode() == name
        assert example["image/format"] == b"jpeg"
        assert example.keys() == theirs[name].keys()
        assert all(example[key] == value for key, value in theirs[name].items() if key not in _BY_DESIGN)


def test_shards_have_the_originals_names_and_sizes(goldens, converted):
    counts = {
        path.name: len(index_records(path)) for split in ("train", "val") for path in list_shards(converted, split)
    }
    assert counts == _recorded(goldens)["records_per_shard"]


def test_the_reader_reads_what_the_builder_recorded(goldens):
    for name, recorded in _recorded(goldens)["files"].items():
        records = list(read_records(goldens / "data" / "tfrecords" / "ade20k" / name))
        assert len(records) == len(recorded)
        for record, expected in zip(records, recorded, strict=True):
            example = parse_example(record)
            assert example.keys() == expected.keys()
            for feature, (kind, (value,)) in expected.items():
                found = example[feature]
                if isinstance(value, dict):
                    assert (len(found), hashlib.sha256(found).hexdigest()) == (value["bytes"], value["sha256"])
                elif kind == "int64_list":
                    assert found == value
                else:
                    assert found.decode().endswith(value.removeprefix("<trees>"))


def test_the_writer_writes_records_as_long_as_the_builders(goldens):
    for path in (goldens / "data" / "tfrecords").glob("*/*.tfrecord"):
        written = b"".join(frame(serialise_example(parse_example(record))) for record in read_records(path))
        assert len(written) == path.stat().st_size
