"""``deeplab evaluate``: the original's eval.py on one checkpoint, once."""

import json
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from deeplab.config import EvaluationConfig, resolve
from deeplab.config.advice import rates_of_another_stride
from deeplab.data.datasets import Dataset
from deeplab.data.diagnosis import refuse_damaged
from deeplab.data.preprocessing import decode_pair, pad_to, resize_to_range
from deeplab.data.records import RecordReader
from deeplab.data.records_description import describe_records, find_dataset, records_dataset
from deeplab.data.shards import list_shards, open_data_folder
from deeplab.errors import ConfigError, DataError
from deeplab.evaluation.confusion import ConfusionMatrix
from deeplab.evaluation.sheet import Sheet
from deeplab.model.checkpoint import Checkpoint, open_checkpoint
from deeplab.model.predictor import make_predictor
from deeplab.stage import OutputFolder, Progress, emit_metrics
from deeplab.stage.inputs import input_digest
from deeplab.stage.versions import CODE_VERSIONS

Tensor = Any
Array = npt.NDArray[Any]
RESULTS_NAME, SHEET_NAME = "results.json", "sheet.png"
_log = logging.getLogger(__name__)


def run(given: Mapping[str, Any]) -> None:
    """Run the stage on the values of a command line."""
    with open_checkpoint(str(given.get("checkpoint_dir") or ".")) as checkpoint:
        told = describe_records(str(given.get("dataset_dir") or "."))
        config = resolve(EvaluationConfig, records_dataset(given, told, checkpoint.description), checkpoint.description)
        if advice := rates_of_another_stride(config, checkpoint.description):
            _log.warning("%s", advice)
        dataset = find_dataset(config.dataset, told, checkpoint.description)
        _check(checkpoint, dataset)
        inputs = {"dataset_dir": input_digest(config.dataset_dir), "checkpoint_dir": checkpoint.digest()}
        with OutputFolder(config.eval_logdir, "evaluate", CODE_VERSIONS["evaluate"], config, inputs) as folder:
            if folder.finished:
                _log.info("%s: already evaluated with these flags", folder.path)
                return
            with open_data_folder(config.dataset_dir) as data:
                reader = RecordReader(list_shards(data, config.eval_split))
                confusion, sheet = _evaluate(config, dataset, checkpoint, reader)
            _finish(folder, config, dataset, confusion, sheet)


def _check(checkpoint: Checkpoint, dataset: Dataset) -> None:
    description = checkpoint.description
    if description is not None and description.num_classes != dataset.num_classes:
        raise ConfigError(
            f"--dataset={dataset.name} has {dataset.num_classes} classes, the checkpoint {description.num_classes}; "
            f"evaluate it on {description.dataset or 'the data set it was trained on'}"
        )


def padded_pair(serialized: Tensor, config: EvaluationConfig, padding_pixel: Sequence[float]) -> tuple[Tensor, ...]:
    """Decode, resize and pad one Example for evaluation.

    Returns:
        image float32 [>= crop height, >= crop width, 3], label int32 [height, width, 1] at the unpadded size, and the
        file name. An image beyond the crop keeps its size, for the caller to refuse.
    """
    image, label, name = decode_pair(serialized)
    image, label = resize_to_range(tf.cast(image, tf.float32), tf.cast(label, tf.int32), config)
    return pad_to(image, *config.eval_crop_size, tf.constant(padding_pixel, tf.float32)), label, name


def _pairs(
    config: EvaluationConfig, reader: RecordReader, padding_pixel: Sequence[float]
) -> Iterator[tuple[Tensor, ...]]:
    """``padded_pair`` of every record, in order."""
    records = tf.data.Dataset.from_generator(
        lambda: (reader[number] for number in range(len(reader))), output_signature=tf.TensorSpec([], tf.string)
    )
    pairs = records.map(
        lambda serialized: padded_pair(serialized, config, padding_pixel), num_parallel_calls=tf.data.AUTOTUNE
    )
    number = 0
    try:
        for pair in pairs.prefetch(tf.data.AUTOTUNE):
            yield pair
            number += 1
    except tf.errors.OpError:
        refuse_damaged(reader, [number])
        raise


def _batches(
    config: EvaluationConfig, reader: RecordReader, padding_pixel: Sequence[float]
) -> Iterator[tuple[Array, list[Array], list[str]]]:
    """Batches of (images [n, crop height, crop width, 3], label maps [h, w], names) in record order.

    Only the padded images are stacked, so a batch may mix sizes, which the original cannot.
    """
    images, labels, names = [], [], []
    for image, label, name in _pairs(config, reader, padding_pixel):
        _refuse_larger(label.shape, config, name.numpy().decode())
        images.append(image)
        labels.append(label.numpy()[..., 0])
        names.append(name.numpy().decode())
        if len(images) == config.eval_batch_size:
            yield tf.stack(images).numpy(), labels, names
            images, labels, names = [], [], []
    if images:
        yield tf.stack(images).numpy(), labels, names


def _refuse_larger(shape: Any, config: EvaluationConfig, name: str) -> None:
    height, width = config.eval_crop_size
    if shape[0] > height or shape[1] > width:
        raise DataError(
            f"{name}: {shape[0]}x{shape[1]} pixels (height x width) exceed --eval_crop_size={height},{width}; "
            "give a crop at least as large as the largest image, or --min_resize_value and --max_resize_value"
        )


def _evaluate(
    config: EvaluationConfig, dataset: Dataset, checkpoint: Checkpoint, reader: RecordReader
) -> tuple[ConfusionMatrix, Sheet]:
    predictor = make_predictor(
        config,
        checkpoint,
        dataset.num_classes,
        config.eval_crop_size,
        scales=config.eval_scales,
        add_flipped_images=config.add_flipped_images,
    )
    confusion, sheet = ConfusionMatrix(dataset.num_classes, dataset.ignore_label), Sheet(dataset)
    progress = Progress(len(reader), "images")
    for images, labels, names in _batches(config, reader, predictor.backbone.padding_pixel):
        predictions = predictor.labels(images)
        for image, label, prediction, name in zip(images, labels, predictions, names, strict=True):
            height, width = label.shape
            try:
                confusion.add(label, prediction[:height, :width])
            except ValueError as error:
                raise DataError(f"{name}: {error}; is this {dataset.name} data?") from None
            if len(sheet.rows) < config.sheet_images:
                photo = image[:height, :width].clip(0, 255).astype("uint8")
                sheet.add(photo, label, prediction[:height, :width])
        progress.advance(len(names))
    progress.close()
    return confusion, sheet


def results(config: EvaluationConfig, dataset: Dataset, confusion: ConfusionMatrix) -> dict[str, Any]:
    """The content of ``results.json``."""
    per_class = [
        {
            "id": number,
            "name": name,
            "iou": _or_none(iou),
            "accuracy": _or_none(accuracy),
            "pixels": int(pixels),
        }
        for number, (name, iou, accuracy, pixels) in enumerate(
            zip(dataset.class_names, confusion.iou, confusion.accuracy, confusion.pixels, strict=True)
        )
    ]
    return {
        **confusion.summary(),
        "per_class": per_class,
        "images": confusion.images,
        "settings": config.key_parameters(),
    }


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)


def _finish(
    folder: OutputFolder, config: EvaluationConfig, dataset: Dataset, confusion: ConfusionMatrix, sheet: Sheet
) -> None:
    content = results(config, dataset, confusion)
    path = folder.path / RESULTS_NAME
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
    records = []
    if sheet.rows:
        sheet.write(folder.path / SHEET_NAME)
        records.append(folder.path / SHEET_NAME)
    folder.finish([path], records)
    emit_metrics(**confusion.summary(), images=confusion.images)
    shown = ", ".join(f"{name} {value:.4f}" for name, value in confusion.summary().items() if value is not None)
    _log.info("%s: %s", path, shown or "no pixel to count")
