"""Records that are damaged or lack a part end training, evaluation and prediction with one line that names them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from deeplab.data.tfrecord import frame, index_records, parse_example, read_records, serialise_example
from tests.integration.conftest import Result

Deeplab = Callable[..., Result]
SHARD = "train-00000-of-00001.tfrecord"
TRAIN = (
    "train", "--dataset=sample", "--train_logdir=run", "--depth_multiplier=0.1", "--aspp_convs_filters=8",
    "--train_crop_size=33,33", "--train_batch_size=2", "--training_number_of_steps=2",
)  # fmt: skip
EVALUATE = (
    "evaluate", "--checkpoint_dir=trained", "--eval_split=train", "--eval_logdir=scores", "--eval_crop_size=513,513"
)  # fmt: skip
PREDICT = ("predict", "--model=trained", "--output_dir=masks", "--images_split=train")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, deeplab_in: Callable[[Path], Deeplab]) -> Path:
    """Four whole records, and a network trained on them."""
    folder = tmp_path_factory.mktemp("prepared")
    deeplab = deeplab_in(folder)
    assert deeplab("sample", "--output_path=sample.zip", "--size=4").returncode == 0
    convert = ["--dataset=sample", "--source=sample.zip", "--output_dir=records", "--num_shards=1"]
    assert deeplab("convert", *convert).returncode == 0
    trained = deeplab(*TRAIN, "--dataset_dir=records", "--train_logdir=trained")
    assert trained.returncode == 0, trained.stderr
    return folder


def _flip_a_byte(shard: Path) -> str:
    offset, length = (int(value) for value in index_records(shard)[2])
    content = bytearray(shard.read_bytes())
    content[offset + length // 2] ^= 0xFF
    shard.write_bytes(content)
    return "record 2 is damaged (checksum)"


def _drop(feature: str, shard: Path) -> None:
    examples = [parse_example(record) for record in read_records(shard)]
    del examples[1][feature]
    shard.write_bytes(b"".join(frame(serialise_example(example)) for example in examples))


def _without_label(shard: Path) -> str:
    _drop("image/segmentation/class/encoded", shard)
    return "record 1: it has no label map (image/segmentation/class/encoded)"


def _without_photo(shard: Path) -> str:
    _drop("image/encoded", shard)
    return "record 1: it has no photo (image/encoded)"


@pytest.mark.parametrize(
    ("command", "damage"),
    [
        (TRAIN, _flip_a_byte),
        (TRAIN, _without_label),
        (EVALUATE, _flip_a_byte),
        (EVALUATE, _without_label),
        (PREDICT, _flip_a_byte),
        (PREDICT, _without_photo),
    ],
)
def test_one_line_names_file_and_record(
    prepared: Path, tmp_path: Path, deeplab: Deeplab, command: tuple[str, ...], damage: Callable[[Path], str]
) -> None:
    shutil.copytree(prepared / "records", tmp_path / "records", ignore=shutil.ignore_patterns("*.gz", "*.json"))
    shutil.copytree(prepared / "trained", tmp_path / "trained")
    reason = damage(tmp_path / "records" / SHARD)
    result = deeplab(*command, f"--{'images' if command is PREDICT else 'dataset_dir'}=records")
    assert result.returncode == 1, result.stderr
    assert "Traceback" not in result.stderr
    assert f"deeplab {command[0]}: records/{SHARD}: {reason}" in result.stderr.splitlines()[-1]
