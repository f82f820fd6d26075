"""Batches are a function of the step: what resuming rests on."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.config import TrainingConfig, validate
from deeplab.data.records import RecordReader
from deeplab.data.tfrecord import frame, serialise_example
from deeplab.errors import DataError
from deeplab.training.input_pipeline import training_batches

PADDING = (127.5, 127.5, 127.5)


def _encoded(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> list[Path]:
    """Two shards of seven photos whose red channel is their number, of odd sizes."""
    generator = np.random.default_rng(0)
    paths = [tmp_path / f"train-{number:05d}-of-00002.tfrecord" for number in range(2)]
    for number in range(7):
        height, width = 20 + 3 * number, 31 - number
        photo = generator.integers(0, 256, (height, width, 3), np.uint8)
        photo[..., 0] = number
        features = {
            "image/encoded": _encoded(photo),
            "image/filename": f"{number}.png".encode(),
            "image/segmentation/class/encoded": _encoded(np.full((height, width), number, np.uint8)),
        }
        with paths[number % 2].open("ab") as file:
            file.write(frame(serialise_example(features)))
    return paths


def _config(**values: Any) -> TrainingConfig:
    given = {"dataset_dir": "-", "train_logdir": "-", "train_crop_size": "17,25", "train_batch_size": 3}
    return validate(TrainingConfig, {**given, **values})


Batches = Callable[..., list[tuple[np.ndarray, np.ndarray]]]


@pytest.fixture
def batches(shards: list[Path]) -> Batches:
    def read(start: int, count: int, **values: Any) -> list[tuple[np.ndarray, np.ndarray]]:
        dataset = training_batches(RecordReader(shards), _config(**values), PADDING, 255, start)
        return [(images.numpy(), labels.numpy()) for images, labels in dataset.take(count)]

    return read


def test_a_resumed_run_sees_the_batches_of_an_unbroken_one(batches: Batches) -> None:
    unbroken, resumed = batches(0, 6), batches(4, 2)
    for (images, labels), (other_images, other_labels) in zip(unbroken[4:], resumed, strict=True):
        assert np.array_equal(images, other_images)
        assert np.array_equal(labels, other_labels)


def test_seeds_differ_and_repeat(batches: Batches) -> None:
    first, again, other = (batches(0, 1, seed=seed)[0][0] for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_an_epoch_holds_every_record_once(batches: Batches) -> None:
    plain = {"min_scale_factor": 1, "max_scale_factor": 1, "train_batch_size": 7}
    for _, labels in batches(0, 3, **plain):
        numbers = [label[label != 255].max() for label in labels]
        assert sorted(numbers) == list(range(7))


def test_photos_and_labels_are_cut_alike_and_padded(batches: Batches) -> None:
    for images, labels in batches(0, 4, train_crop_size="41,41"):
        assert images.shape == (3, 41, 41, 3) and labels.shape == (3, 41, 41, 1)
        for image, label in zip(images, labels, strict=True):
            padded = label[..., 0] == 255
            assert np.all(image[padded] == 127.5)
            assert np.all(np.abs(image[~padded][:, 0] - label[~padded][:, 0]) < 1e-3)


def test_the_bytes_tell_the_format() -> None:
    photo = np.full((4, 5, 3), 200, np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(photo).save(buffer, "JPEG")
    from deeplab.data.preprocessing import decode_pair

    label = _encoded(np.zeros((4, 5), np.uint8))
    example = {"image/encoded": buffer.getvalue(), "image/segmentation/class/encoded": label, "image/format": b"png"}
    image, _, _ = decode_pair(tf.constant(serialise_example(example)))
    assert image.shape == (4, 5, 3)


def test_shards_without_records(tmp_path: Path) -> None:
    empty = tmp_path / "train-00000-of-00001.tfrecord"
    empty.touch()
    with pytest.raises(DataError, match="no record"):
        RecordReader([empty])
