"""``deeplab train``: the original's train.py as a stage that can stop and resume anywhere."""

import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf

from deeplab.config import ModelDescription, TrainingConfig, resolve
from deeplab.config.advice import rates_of_another_stride
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.datasets import Dataset
from deeplab.data.records import RecordReader
from deeplab.data.records_description import describe_records, find_dataset, records_dataset
from deeplab.data.shards import list_shards, open_data_folder
from deeplab.errors import CheckpointError, ConfigError
from deeplab.model.checkpoint import (
    Checkpoint,
    content_digest,
    locate,
    open_checkpoint,
    write_checkpoint,
    write_state,
)
from deeplab.model.network import EXTRA_LAYER_SCOPES
from deeplab.model.variables import is_slot
from deeplab.stage import OutputFolder, Progress, stop_requested
from deeplab.stage.inputs import input_digest
from deeplab.stage.stop import polite_stop
from deeplab.stage.versions import CODE_VERSIONS
from deeplab.training.initialization import initialize
from deeplab.training.input_pipeline import read_batches
from deeplab.training.learning_rate import learning_rate
from deeplab.training.metrics_log import FILE_NAME as METRICS_NAME
from deeplab.training.metrics_log import MetricsLog
from deeplab.training.sealing import SealedCheckpoints
from deeplab.training.summaries import Summaries
from deeplab.training.trainer import Trainer

_log = logging.getLogger(__name__)
# Checkpoints kept, the last included: the default of TensorFlow 1's Saver.
_KEPT = 5
# Decay of the heads' batch norm: what is left of the initial value after n steps is this to the power n.
_HEAD_DECAY = 0.9997


def run(given: Mapping[str, Any]) -> None:
    """Run the stage on the values of a command line."""
    told = describe_records(str(given.get("dataset_dir") or "."))
    config = resolve(TrainingConfig, records_dataset(given, told))
    dataset = find_dataset(config.dataset, told)
    _check(config, dataset)
    _warn_of_the_unusual(config)
    inputs = {"dataset_dir": input_digest(config.dataset_dir)}
    if config.tf_initial_checkpoint:
        with open_checkpoint(config.tf_initial_checkpoint) as initial:
            inputs["tf_initial_checkpoint"] = initial.digest()
    folder = OutputFolder(
        config.train_logdir,
        "train",
        CODE_VERSIONS["train"],
        config,
        inputs,
        growing=("training_number_of_steps",),
        adopts=("checkpoint",),
    )
    with folder, open_data_folder(config.dataset_dir) as data:
        if folder.finished:
            _log.info("%s: already trained with these flags", folder.path)
            return
        reader = RecordReader(list_shards(data, config.train_split))
        _log.info("%d records of %s/%s", len(reader), config.dataset, config.train_split)
        Run(config, dataset, reader, folder).execute()


def _check(config: TrainingConfig, dataset: Dataset) -> None:
    try:
        config.check_against_classes(dataset.num_classes)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _warn_of_the_unusual(config: TrainingConfig) -> None:
    if config.fine_tune_batch_norm and config.train_batch_size < 12:
        _log.warning(
            "--train_batch_size=%d with --fine_tune_batch_norm: batch statistics of fewer than 12 images are noisy; "
            "usual are 12 or more, or --fine_tune_batch_norm=false",
            config.train_batch_size,
        )
    if advice := rates_of_another_stride(config):
        _log.warning("%s", advice)
    stride = config.output_stride
    if any((side - 1) % stride for side in config.train_crop_size):
        _log.warning(
            "--train_crop_size=%s is not a multiple of the output stride plus one, such as %s: features do not align "
            "with the crop's corners",
            ",".join(str(side) for side in config.train_crop_size),
            ",".join(str(side // stride * stride + 1) for side in config.train_crop_size),
        )


class Run:
    """One attempt at a training: from the state in its folder to the last step."""

    def __init__(self, config: TrainingConfig, dataset: Dataset, reader: RecordReader, folder: OutputFolder) -> None:
        self.config, self.dataset, self.reader, self.folder = config, dataset, reader, folder
        self.trainer = Trainer(config, dataset)
        self.description = ModelDescription.of(
            config, config.train_crop_size, dataset.num_classes, **dataset.description()
        )
        self._sealed = SealedCheckpoints(Path(config.seal_checkpoints)) if config.seal_checkpoints else None
        self._saved: list[Path] = []
        self._last_save = time.monotonic()
        self._last_summary = time.monotonic()

    def execute(self) -> None:
        """Restore, train, and seal the folder."""
        self._restore()
        self.description.write(self.folder.path / DESCRIPTION_NAME)
        self._metrics = MetricsLog(self.folder.path / METRICS_NAME, self.trainer.step)
        self._summaries = Summaries(self.folder.path)
        with polite_stop():
            complete = self._train()
        if complete:
            self._seal()

    def _restore(self) -> None:
        """Go on from this folder's checkpoint, else start from the initial one, else from scratch."""
        found = self._last_whole_checkpoint()
        if found is not None:
            checkpoint, values = found
            self._refuse_another_model(checkpoint, values)
            self.trainer.load(values)
            self._saved = _checkpoints(self.folder.path, checkpoint)
            _log.info("resuming from %s at step %d", checkpoint.prefix.name, self.trainer.step)
        elif self.config.tf_initial_checkpoint:
            with open_checkpoint(self.config.tf_initial_checkpoint) as initial:
                report = initialize(self.trainer, initial.read(), self.config, self.config.tf_initial_checkpoint)
            _log.info(
                "initial checkpoint: %d values loaded, %d variables start afresh (%s), %d values unused",
                len(report.loaded),
                len(report.fresh),
                ", ".join(report.fresh[:4]) + (", …" if len(report.fresh) > 4 else "") or "none",
                len(report.unused),
            )
        else:
            self._warn_of_statistics_from_nothing()

    def _last_whole_checkpoint(self) -> tuple[Checkpoint, dict[str, Any]] | None:
        """The newest checkpoint here that can be read, with its values.

        A damaged one is passed over for an earlier one, in a folder of ours also for a start from scratch. One that
        another program left is not: its loss is for a person to know of.
        """
        folder = self.folder.path
        checkpoints = [Checkpoint(index.with_suffix(""), None) for index in folder.glob("*.index")]
        for checkpoint in sorted(checkpoints, key=lambda found: found.step, reverse=True):
            try:
                return checkpoint, checkpoint.read()
            except CheckpointError as error:
                if not (folder / DESCRIPTION_NAME).exists():
                    raise
                _log.warning("%s; passed over", error)
        return None

    def _refuse_another_model(self, checkpoint: Checkpoint, values: Mapping[str, Any]) -> None:
        """Going on with other layers would overwrite the checkpoint with a network that it is not."""
        variables = self.trainer.store.shapes()
        wrong = [name for name, shape in variables.items() if name not in values or values[name].shape != shape]
        wrong += [
            name
            for name in values
            if name.startswith(EXTRA_LAYER_SCOPES) and name not in variables and not is_slot(name)
        ]
        if wrong:
            raise CheckpointError(
                f"{checkpoint.prefix}: was trained with other model flags: {wrong[0]} and {len(wrong) - 1} more "
                "variables do not agree; repeat its flags to go on there, or choose an empty --train_logdir"
            )

    def _warn_of_statistics_from_nothing(self) -> None:
        if not self.config.fine_tune_batch_norm:
            _log.warning(
                "from scratch with --fine_tune_batch_norm=false batch norm keeps its initial statistics, which fit no "
                "photo; give --tf_initial_checkpoint (deeplab zoo list), or leave batch norm to learn"
            )
        left = _HEAD_DECAY**self.config.training_number_of_steps
        if self.config.fine_tune_batch_norm and not self.config.batch_norm_reestimation_batches and left > 0.1:
            _log.warning(
                "after %d steps from scratch the heads' batch norm statistics are still %.0f %% initial values; "
                "--batch_norm_reestimation_batches=50 measures them before the last checkpoint",
                self.config.training_number_of_steps,
                100 * left,
            )

    def _train(self) -> bool:
        """Take the missing steps; returns whether all are taken."""
        config, trainer = self.config, self.trainer
        padding_pixel = trainer.network.backbone.padding_pixel
        batches = read_batches(self.reader, config, padding_pixel, self.dataset.ignore_label, trainer.step)
        progress = Progress(config.training_number_of_steps, "steps", done=trainer.step)
        mark = (time.monotonic(), trainer.step)
        profile = _Profile(config.profile_logdir, trainer.step)
        while trainer.step < config.training_number_of_steps:
            profile.at(trainer.step)
            if stop_requested() is not None:
                self._save()
                return False
            done = trainer.step
            rate = learning_rate(config, done)
            images, labels = next(batches)
            loss = trainer.train_step(images, labels, rate)
            progress.advance()
            if (done + 1) % config.log_steps == 0 or done + 1 == config.training_number_of_steps:
                mark = self._report(loss, rate, mark)
            self._summarize(loss, rate, images, labels)
            if self._save_is_due():
                self._save()
        progress.close()
        if config.batch_norm_reestimation_batches:
            _log.info("re-estimating batch norm statistics over %d batches", config.batch_norm_reestimation_batches)
            trainer.reestimate_batch_norm(next(batches)[0] for _ in range(config.batch_norm_reestimation_batches))
        self._save()
        return True

    def _report(self, loss: float, rate: float, mark: tuple[float, int]) -> tuple[float, int]:
        now, step = time.monotonic(), self.trainer.step
        speed = (step - mark[1]) * self.config.train_batch_size / max(now - mark[0], 1e-9)
        self._metrics.write(step=step, loss=loss, learning_rate=rate, images_per_second=round(speed, 2))
        return now, step

    def _summarize(self, loss: float, rate: float, images: tf.Tensor, labels: tf.Tensor) -> None:
        step = self.trainer.step
        last = step == self.config.training_number_of_steps
        if not last and time.monotonic() - self._last_summary < self.config.save_summaries_secs:
            return
        self._last_summary = time.monotonic()
        self._summaries.scalars(step, {"losses/total_loss": loss, "learning_rate": rate})
        if self.config.save_summaries_images:
            painted = [self.dataset.paint(label) for label in labels[..., 0].numpy()]
            self._summaries.images(step, "samples/image", images.numpy().clip(0, 255).astype("uint8"))
            self._summaries.images(step, "samples/label", painted)

    def _save_is_due(self) -> bool:
        step = self.trainer.step
        if step == self.config.training_number_of_steps:
            return False
        if self.config.save_interval_steps is not None:
            return step % self.config.save_interval_steps == 0
        return time.monotonic() - self._last_save >= self.config.save_interval_secs

    def _save(self) -> None:
        prefix = self.folder.path / f"model.ckpt-{self.trainer.step}"
        write_checkpoint(prefix, self.trainer.values())
        self._saved = [saved for saved in self._saved if saved != prefix] + [prefix]
        write_state(self.folder.path, self._saved[-_KEPT:])
        for old in self._saved[:-_KEPT]:
            for file in Checkpoint(old, None).files():
                file.unlink(missing_ok=True)
        self._saved = self._saved[-_KEPT:]
        _log.info("checkpoint %s", prefix.name)
        if self._sealed is not None:
            self._sealed.add(Checkpoint(prefix, self.description))
        self._last_save = time.monotonic()

    def _seal(self) -> None:
        self._metrics.close()
        self._summaries.close()
        folder = self.folder.path
        checkpoint = locate(folder)
        products = [*checkpoint.files(), folder / DESCRIPTION_NAME]
        records = [
            path
            for path in sorted(folder.iterdir())
            if path.is_file() and path not in products and not path.name.startswith(".")
        ]
        digest = content_digest(checkpoint.read(), self.description)
        self.folder.finish(products, records, product_digest=digest)


class _Profile:
    """A TensorFlow profile of ten steps, ten steps after the start, for TensorBoard's profiler."""

    def __init__(self, folder: str | None, start: int) -> None:
        self._folder, self._first, self._last = folder, start + 10, start + 20

    def at(self, step: int) -> None:
        """Start or stop before the step after ``step``."""
        if self._folder is not None and step == self._first:
            tf.profiler.experimental.start(self._folder)
        if self._folder is not None and step == self._last:
            tf.profiler.experimental.stop()


def _checkpoints(folder: Path, last: Checkpoint) -> list[Path]:
    """Prefixes of the whole checkpoints in a folder up to ``last``, oldest first."""
    prefixes = [index.with_suffix("") for index in folder.glob("model.ckpt-*.index")]
    known = sorted((Checkpoint(prefix, None) for prefix in prefixes), key=lambda checkpoint: checkpoint.step)
    return [checkpoint.prefix for checkpoint in known if checkpoint.step <= last.step]
