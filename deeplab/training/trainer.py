"""One network under training: its variables, the step, batch norm's statistics, its checkpoints."""

import math
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from deeplab.config import TrainingConfig
from deeplab.data.datasets import Dataset
from deeplab.errors import TrainingError
from deeplab.model.layers import Mode
from deeplab.model.network import Network
from deeplab.model.variables import VariableStore
from deeplab.training.loss import segmentation_losses
from deeplab.training.optimizers import gradient_multipliers, make_optimizer

Tensor = Any
Array = npt.NDArray[Any]
GLOBAL_STEP = "global_step"
# A constant apart from the seeds of data augmentation.
_DROPOUT_STREAM = 0x5EED


class Trainer:
    """Variables, optimiser and the training step of one configuration.

    Args:
        config: model and training options.
        dataset: class count and ignore label.
    """

    def __init__(self, config: TrainingConfig, dataset: Dataset) -> None:
        self.config, self.dataset = config, dataset
        self.store = VariableStore(config.seed)
        self.network = Network(config, dataset.num_classes, config.train_crop_size, self.store)
        self._mode = Mode(True, config.fine_tune_batch_norm, config.weight_decay, config.drop_path_keep_prob)
        self.global_step = tf.Variable(0, dtype=tf.int64, trainable=False, name=GLOBAL_STEP)
        self._create_variables()
        self.optimizer = make_optimizer(config, self.trainable)
        self._multipliers = gradient_multipliers(config, self.store.trainable_names)
        size = config.train_crop_size
        signature = [
            tf.TensorSpec([config.train_batch_size, *size, 3], tf.float32),
            tf.TensorSpec([config.train_batch_size, *size, 1], tf.int32),
        ]
        self._step_function = tf.function(
            self._step, autograph=False, input_signature=[*signature, tf.TensorSpec([], tf.float32)]
        )
        self._statistics_function = tf.function(self._statistics, autograph=False, input_signature=signature[:1])

    def _create_variables(self) -> None:
        image = tf.TensorSpec([1, *self.config.train_crop_size, 3], tf.float32)
        tf.function(self.network.logits, autograph=False).get_concrete_function(image)

    @property
    def trainable(self) -> dict[str, tf.Variable]:
        """Name -> trainable variable."""
        return {name: self.store.variables[name] for name in self.store.trainable_names}

    @property
    def step(self) -> int:
        """Completed steps."""
        return int(self.global_step.numpy())

    def losses(self, images: Tensor, labels: Tensor) -> tuple[list[Tensor], Tensor]:
        """Cross entropies (one per output and pyramid scale) and the L2 loss of a batch; records no gradient itself."""
        entries = self.network.logits(images, self._mode)
        ignore = self.dataset.ignore_label
        losses = [
            loss
            for logits in entries.values()
            for loss in segmentation_losses(logits, labels, ignore, self.config, self.global_step)
        ]
        return losses, self.store.regularization_loss()

    def gradients(self, images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Total loss and gradient per variable name, before any multiplier."""
        with tf.GradientTape() as tape:
            losses, regularization = self.losses(images, labels)
            total = tf.add_n([*losses, regularization])
        found = zip(self.store.trainable_names, tape.gradient(total, self.store.trainable), strict=True)
        return total, {name: gradient for name, gradient in found if gradient is not None}

    def _step(self, images: Tensor, labels: Tensor, rate: Tensor) -> Tensor:
        seed = tf.stack([self.config.seed, _DROPOUT_STREAM])
        self.store.dropout_seed = tf.random.experimental.stateless_fold_in(seed, self.global_step)
        total_steps = float(self.config.training_number_of_steps)
        self.store.training_progress = tf.cast(self.global_step, tf.float32) / total_steps
        total, gradients = self.gradients(images, labels)
        scaled = {name: gradient * self._multipliers.get(name, 1.0) for name, gradient in gradients.items()}
        self.optimizer.apply(scaled, self.store.variables, rate)
        self.global_step.assign_add(1)
        self.store.dropout_seed = self.store.training_progress = None
        return total

    def train_step(self, images: Tensor, labels: Tensor, rate: float) -> float:
        """Take one step; returns the total loss before it.

        Args:
            images: float32 [batch, height, width, 3], 0..255.
            labels: int32 [batch, height, width, 1].
            rate: learning rate.

        Raises:
            TrainingError: if the loss is not a finite number.
        """
        loss = float(self._step_function(images, labels, tf.constant(rate, tf.float32)))
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.step}; lower --base_learning_rate (now {rate:.3g}) or check the "
                "labels, then start again from the last checkpoint"
            )
        return loss

    def _statistics(self, images: Tensor) -> None:
        self.network.logits(images, Mode(training=False, batch_statistics=True))

    def reestimate_batch_norm(self, batches: Iterable[Tensor]) -> None:
        """Replace batch norm's moving statistics by their plain mean over ``batches`` of images.

        The k-th batch keeps (k - 1) / k of what the earlier ones gave, whatever the layers' own decay.
        """
        decay = self.store.batch_norm_decay = tf.Variable(0.0, trainable=False)
        for number, images in enumerate(batches):
            decay.assign(number / (number + 1))
            self._statistics_function(images)
        self.store.batch_norm_decay = None

    def values(self) -> dict[str, Array]:
        """Everything a checkpoint holds: name -> value of variables, optimiser slots and the global step."""
        everything = {**self.store.variables, **self.optimizer.slots, GLOBAL_STEP: self.global_step}
        return {name: variable.numpy() for name, variable in everything.items()}

    def load(self, values: dict[str, Array]) -> None:
        """Assign those of ``values`` that this trainer has variables for."""
        everything = {**self.store.variables, **self.optimizer.slots, GLOBAL_STEP: self.global_step}
        for name, value in values.items():
            if name in everything:
                everything[name].assign(value)
