"""Records, data sets and evaluation batches against what the original's builders and reader made of the same files.

Deliberate differences: ADE20K's ``image/filename`` is a base name instead of the path on the command line, its
``image/format`` tells what the photo is instead of repeating a flag, and the order within a split is a seeded one.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.backbones import BACKBONES
from deeplab.config import EvaluationConfig, validate
from deeplab.data import convert
from deeplab.data.datasets import get_dataset
from deeplab.data.images import check_mask
from deeplab.data.records import RecordReader
from deeplab.data.shards import list_shards
from deeplab.data.tfrecord import frame, index_records, parse_example, read_records, serialise_example
from deeplab.evaluation.evaluate import padded_pair
from tests.parity.conftest import read_cases

pytestmark = pytest.mark.parity

TREES = {"ade20k": "ADEChallengeData2016", "pascal_voc_seg": "VOC2012", "cityscapes": "cityscapes"}
SHARDS = {"ade20k": 4, "pascal_voc_seg": 4, "cityscapes": 10}
BUILDERS = {case["id"]: case for case in read_cases("data/builders.json")}
READ = read_cases("data/data_generator.json")
DESCRIPTORS = [case["descriptors"] for case in read_cases("data/descriptors.json")]
# What the original's reader asks of a record.
SPEC = {
    "image/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
    "image/filename": tf.io.FixedLenFeature((), tf.string, default_value=""),
    "image/format": tf.io.FixedLenFeature((), tf.string, default_value="jpeg"),
    "image/height": tf.io.FixedLenFeature((), tf.int64, default_value=0),
    "image/width": tf.io.FixedLenFeature((), tf.int64, default_value=0),
    "image/segmentation/class/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
    "image/segmentation/class/format": tf.io.FixedLenFeature((), tf.string, default_value="png"),
}
each_data_set = pytest.mark.parametrize("name", TREES)


@pytest.fixture(scope="module")
def converted(goldens: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Our records of the original's three trees."""
    folders = {name: tmp_path_factory.mktemp(name) for name in TREES}
    for name, folder in folders.items():
        tree = str(goldens / "data" / "trees" / TREES[name])
        convert.run({"dataset": name, "source": tree, "output_dir": str(folder), "num_shards": SHARDS[name]})
    return folders


def _records(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Split and payload of every record."""
    for shard in sorted(folder.glob("*.tfrecord")):
        for record in read_records(shard):
            yield shard.name.partition("-")[0], record


def _by_name(folder: Path) -> dict[tuple[str, str], dict[str, bytes | int]]:
    found = {}
    for split, record in _records(folder):
        example = parse_example(record)
        assert isinstance(example["image/filename"], bytes)
        found[split, PurePosixPath(example["image/filename"].decode()).name] = example
    return found


@each_data_set
def test_records_are_the_originals(goldens: Path, converted: dict[str, Path], name: str) -> None:
    theirs, ours = _by_name(goldens / "data" / "tfrecords" / name), _by_name(converted[name])
    assert ours.keys() == theirs.keys() and ours
    by_design = {"image/filename": None, "image/format": b"jpeg"} if name == "ade20k" else {}
    for (split, base), example in ours.items():
        assert example.keys() == theirs[split, base].keys()
        for key, value in theirs[split, base].items():
            expected = by_design.get(key, value) or base.encode()
            assert example[key] == expected, (split, base, key)


@each_data_set
def test_records_satisfy_the_originals_reader(converted: dict[str, Path], name: str) -> None:
    for _, record in _records(converted[name]):
        parsed, plain = tf.io.parse_single_example(record, SPEC), parse_example(record)
        assert all(parsed[key].numpy() == plain[key] for key in SPEC)
        photo = tf.io.decode_image(parsed["image/encoded"], channels=3)
        mask = tf.io.decode_png(parsed["image/segmentation/class/encoded"], channels=1)
        assert photo.shape[:2] == mask.shape[:2] == (plain["image/height"], plain["image/width"])


@each_data_set
def test_shards_have_the_originals_names_and_sizes(converted: dict[str, Path], name: str) -> None:
    counts = {path.name: len(index_records(path)) for path in converted[name].glob("*.tfrecord")}
    assert counts == BUILDERS[name]["records_per_shard"]


@each_data_set
def test_the_reader_reads_what_the_builder_recorded(goldens: Path, name: str) -> None:
    for shard, recorded in BUILDERS[name]["files"].items():
        records = list(read_records(goldens / "data" / "tfrecords" / name / shard))
        assert len(records) == len(recorded)
        for record, expected in zip(records, recorded, strict=True):
            example = parse_example(record)
            assert example.keys() == expected.keys()
            for feature, (_, (value,)) in expected.items():
                _compare(example[feature], value)


def _compare(found: bytes | int, recorded: Any) -> None:
    if isinstance(recorded, dict):
        assert isinstance(found, bytes)
        assert (len(found), hashlib.sha256(found).hexdigest()) == (recorded["bytes"], recorded["sha256"])
    elif isinstance(found, bytes):
        assert found.decode().endswith(recorded.removeprefix("<trees>"))
    else:
        assert found == recorded


def test_the_writer_writes_records_as_long_as_the_builders(goldens: Path) -> None:
    for path in (goldens / "data" / "tfrecords").glob("*/*.tfrecord"):
        written = b"".join(frame(serialise_example(parse_example(record))) for record in read_records(path))
        assert len(written) == path.stat().st_size


def test_colour_maps_are_removed_as_by_the_original(goldens: Path) -> None:
    recorded = np.load(goldens / "data" / "builders.npz")
    folder = goldens / "data" / "trees" / "VOC2012" / "SegmentationClass"
    reading = get_dataset("pascal_voc_seg").layout.splits["train"].masks[0].reading
    names = [key for key in recorded.files if key.startswith("remove_gt_colormap/")]
    assert names
    for key in names:
        mask = folder / PurePosixPath(key).name
        with Image.open(mask) as palette:
            assert palette.mode == "P"
        labels = tf.io.decode_png(check_mask(mask.read_bytes(), str(mask), reading).encoded, channels=1)
        np.testing.assert_array_equal(labels.numpy()[..., 0], recorded[key])


@each_data_set
def test_data_sets_are_the_originals(name: str) -> None:
    (descriptors,) = DESCRIPTORS
    theirs, ours = descriptors[name], get_dataset(name)
    assert (ours.num_classes, ours.ignore_label) == (theirs["num_classes"], theirs["ignore_label"])
    assert theirs["splits_to_sizes"].keys() <= ours.layout.splits.keys()


@pytest.mark.parametrize("case", READ, ids=lambda case: f"{case['id']}-{case['args']['dataset_name']}")
def test_records_are_read_into_the_originals_batches(goldens: Path, case: dict[str, Any]) -> None:
    args = case["args"]
    split, name = args["split_name"], args["dataset_name"]
    dataset = get_dataset(name)
    assert (dataset.num_classes, dataset.ignore_label) == (case["num_of_classes"], case["ignore_label"])
    pairs = _evaluation_pairs(goldens / "data" / "tfrecords" / name, split, args)
    names = {base for batch in case["image_names"] for base in batch}
    if case["error"] is None:
        assert {pair[2].numpy().decode() for pair in pairs} == {base.replace("<trees>", "") for base in names} or all(
            any(pair[2].numpy().decode().endswith(base.removeprefix("<trees>")) for base in names) for pair in pairs
        )
    if case.get("names_only") or case["error"]:
        return  # the original's order is its readers'; and it cannot batch photos of several sizes, which ours can
    recorded = np.load(goldens / "data" / "data_generator.npz")
    by_name = {PurePosixPath(pair[2].numpy().decode()).name: pair for pair in pairs}
    for number, (base,) in enumerate(case["image_names"]):
        image, label, _ = by_name[PurePosixPath(base).name]
        expected = {
            key: recorded[f"{case['id']}/batch{number}/{key}"][0] for key in ("image", "label", "height", "width")
        }
        np.testing.assert_array_equal(image.numpy(), expected["image"])
        height, width = label.shape[:2]
        np.testing.assert_array_equal(label.numpy(), expected["label"][:height, :width])
        padding = expected["label"].copy()
        padding[:height, :width] = dataset.ignore_label
        assert (padding == dataset.ignore_label).all(), "beyond the photo the original ignores, as ours does"
        assert min(expected["height"], expected["width"]) > 0


def _evaluation_pairs(folder: Path, split: str, args: dict[str, Any]) -> list[tuple[Any, ...]]:
    resize = {key: args[key] for key in ("min_resize_value", "max_resize_value", "resize_factor") if key in args}
    places = {"dataset_dir": str(folder), "checkpoint_dir": "-", "eval_logdir": "-"}
    config = validate(EvaluationConfig, {**places, **resize, "eval_crop_size": args["crop_size"]})
    padding = BACKBONES[args["model_variant"]].padding_pixel
    reader = RecordReader(list_shards(folder, split))
    return [padded_pair(reader[number], config, padding) for number in range(len(reader))]


def test_nothing_is_missing() -> None:
    assert set(BUILDERS) >= set(TREES) or not BUILDERS
    assert json.dumps(sorted(TREES)) == json.dumps(sorted(SHARDS))
