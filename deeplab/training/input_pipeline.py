"""Batches for training, as a function of the step alone.

Sample number ``step * batch + i`` of a run is always the same crop of the same photo: every epoch is a full
permutation drawn from the seed, and augmentation is seeded by the sample's number. So a run that resumes at step n
continues with the very batches that an unbroken run would have seen, at no cost, and nothing but serialised
records is ever buffered.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab.config import TrainingConfig
from deeplab.data.preprocessing import augment, decode_pair, resize_to_range
from deeplab.data.tfrecord import index_records
from deeplab.errors import DataError

Tensor = Any


class RecordReader:
    """Random access to the records of some shards.

    Raises:
        DataError: if the shards hold no record, or one is cut short.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        tables = [index_records(shard) for shard in shards]
        self._shard = np.concatenate([np.full(len(table), number) for number, table in enumerate(tables)])
        self._place = np.concatenate(tables)
        self._files = [os.open(shard, os.O_RDONLY) for shard in shards]
        if not len(self):
            raise DataError(f"{shards[0].parent}: the shards hold no record; convert the data again")

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, number: int) -> bytes:
        offset, length = (int(value) for value in self._place[number])
        return os.pread(self._files[self._shard[number]], length, offset)


def _samples(reader: RecordReader, seed: int, start: int) -> Iterator[tuple[bytes, int]]:
    """Endless (record, sample number) from sample ``start`` on."""
    count = len(reader)
    epoch, position = divmod(start, count)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(count)
        for place in range(position, count):
            yield reader[int(order[place])], epoch * count + place
        epoch, position = epoch + 1, 0


def training_batches(
    reader: RecordReader,
    config: TrainingConfig,
    padding_pixel: Sequence[float],
    ignore_label: int,
    start_step: int,
) -> tf.data.Dataset:
    """Endless batches from step ``start_step`` on.

    Args:
        reader: the split's records.
        config: seed, batch size, crop and augmentation.
        padding_pixel: colour around images smaller than the crop.
        ignore_label: label there.
        start_step: completed steps.

    Returns:
        float32 [batch, height, width, 3] in 0..255 and int32 [batch, height, width, 1].
    """

    def prepare(serialized: Tensor, number: Tensor) -> tuple[Tensor, Tensor]:
        image, label, _ = decode_pair(serialized)
        image, label = resize_to_range(tf.cast(image, tf.float32), tf.cast(label, tf.int32), config)
        seed = tf.stack([tf.constant(config.seed, tf.int64), number])
        return augment(image, label, seed, config, padding_pixel, ignore_label)

    samples = tf.data.Dataset.from_generator(
        lambda: _samples(reader, config.seed, start_step * config.train_batch_size),
        output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)),
    )
    options = tf.data.Options()
    options.deterministic = True
    batches = samples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).batch(
        config.train_batch_size, drop_remainder=True
    )
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)
