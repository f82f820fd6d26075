"""Batches for training, as a function of the step alone.

Sample number ``step * batch + i`` of a run is always the same crop of the same photo: every epoch is a full
permutation drawn from the seed, and augmentation is seeded by the sample's number. So a run that resumes at step n
continues with the very batches that an unbroken run would have seen, at no cost, and nothing but serialised
records is ever buffered.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import tensorflow as tf

from deeplab.config import TrainingConfig
from deeplab.data.diagnosis import refuse_damaged
from deeplab.data.preprocessing import augment, decode_pair, resize_to_range
from deeplab.data.records import RecordReader

Tensor = Any


def _order(count: int, seed: int, start: int) -> Iterator[tuple[int, int]]:
    """Endless (record number, sample number) from sample ``start`` on, of ``count`` records."""
    epoch, position = divmod(start, count)
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(count)
        for place in range(position, count):
            yield int(order[place]), epoch * count + place
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

    start = start_step * config.train_batch_size
    samples = tf.data.Dataset.from_generator(
        lambda: ((reader[record], sample) for record, sample in _order(len(reader), config.seed, start)),
        output_signature=(tf.TensorSpec([], tf.string), tf.TensorSpec([], tf.int64)),
    )
    options = tf.data.Options()
    options.deterministic = True
    batches = samples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE).batch(
        config.train_batch_size, drop_remainder=True
    )
    return batches.prefetch(tf.data.AUTOTUNE).with_options(options)


def read_batches(
    reader: RecordReader,
    config: TrainingConfig,
    padding_pixel: Sequence[float],
    ignore_label: int,
    start_step: int,
) -> Iterator[tuple[Tensor, Tensor]]:
    """``training_batches``, one after the other.

    Raises:
        DataError: naming the record that cannot be read or decoded.
    """
    step = start_step
    try:
        for batch in training_batches(reader, config, padding_pixel, ignore_label, start_step):
            yield batch
            step += 1
    except tf.errors.OpError:
        size = config.train_batch_size
        records = (record for record, _ in _order(len(reader), config.seed, step * size))
        refuse_damaged(reader, islice(records, size))
        raise
