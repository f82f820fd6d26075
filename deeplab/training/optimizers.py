"""Momentum and Adam with TensorFlow 1's update rules and slot names, so that checkpoints carry over."""

import math
from collections.abc import Mapping
from typing import Any, Protocol

import tensorflow as tf

from deeplab.config import TrainingConfig
from deeplab.model.network import EXTRA_LAYER_SCOPES

Tensor = Any


class Optimizer(Protocol):
    """What the training step needs of an optimiser."""

    slots: dict[str, tf.Variable]

    def apply(self, gradients: Mapping[str, Tensor], variables: Mapping[str, tf.Variable], rate: Tensor) -> None:
        """Update ``variables`` in place by their gradients."""


def make_optimizer(config: TrainingConfig, trainable: Mapping[str, tf.Variable]) -> Optimizer:
    """The configured optimiser with its slots for the trainable variables."""
    if config.optimizer == "adam":
        return Adam(trainable, config.adam_epsilon)
    return Momentum(trainable, config.momentum)


def _zeros(variables: Mapping[str, tf.Variable], slot: str) -> dict[str, tf.Variable]:
    return {
        f"{name}/{slot}": tf.Variable(tf.zeros(variable.shape), trainable=False, name=f"{name}/{slot}")
        for name, variable in variables.items()
    }


class Momentum:
    """accumulator = momentum * accumulator + gradient; variable -= rate * accumulator (no Nesterov)."""

    def __init__(self, variables: Mapping[str, tf.Variable], momentum: float) -> None:
        self._momentum = momentum
        self.slots = _zeros(variables, "Momentum")

    def apply(self, gradients: Mapping[str, Tensor], variables: Mapping[str, tf.Variable], rate: Tensor) -> None:
        """Update ``variables`` in place by their gradients."""
        for name, gradient in gradients.items():
            accumulated = self.slots[f"{name}/Momentum"]
            variables[name].assign_sub(rate * accumulated.assign(self._momentum * accumulated + gradient))


class Adam:
    """Kingma and Ba's Adam in TensorFlow 1's form: epsilon beside the uncorrected root."""

    _BETA1, _BETA2 = 0.9, 0.999

    def __init__(self, variables: Mapping[str, tf.Variable], epsilon: float) -> None:
        self._epsilon = epsilon
        self.slots = {**_zeros(variables, "Adam"), **_zeros(variables, "Adam_1")}
        self.slots["beta1_power"] = tf.Variable(self._BETA1, trainable=False, name="beta1_power")
        self.slots["beta2_power"] = tf.Variable(self._BETA2, trainable=False, name="beta2_power")

    def apply(self, gradients: Mapping[str, Tensor], variables: Mapping[str, tf.Variable], rate: Tensor) -> None:
        """Update ``variables`` in place by their gradients."""
        power1, power2 = self.slots["beta1_power"], self.slots["beta2_power"]
        rate = rate * tf.sqrt(1.0 - power2) / (1.0 - power1)
        for name, gradient in gradients.items():
            first, second = self.slots[f"{name}/Adam"], self.slots[f"{name}/Adam_1"]
            mean = first.assign(self._BETA1 * first + (1.0 - self._BETA1) * gradient)
            square = second.assign(self._BETA2 * second + (1.0 - self._BETA2) * tf.square(gradient))
            variables[name].assign_sub(rate * mean / (tf.sqrt(square) + self._epsilon))
        power1.assign(power1 * self._BETA1)
        power2.assign(power2 * self._BETA2)


def extra_layer_scopes(config: TrainingConfig) -> tuple[str, ...]:
    """Scopes of the layers that ``last_layer_gradient_multiplier`` and ``initialize_last_layer`` speak of."""
    return ("logits",) if config.last_layers_contain_logits_only else EXTRA_LAYER_SCOPES


def gradient_multipliers(config: TrainingConfig, names: list[str]) -> dict[str, float]:
    """Variable name -> factor of its gradient, where that is not 1.

    Biases learn twice as fast; extra layers by ``last_layer_gradient_multiplier``. Scopes match anywhere in a name.
    """
    factors = {}
    for name in names:
        extra = any(scope in name for scope in extra_layer_scopes(config))
        factor = config.last_layer_gradient_multiplier if extra else 1.0
        factors[name] = 2.0 * factor if "biases" in name else factor
    return {name: factor for name, factor in factors.items() if not math.isclose(factor, 1.0)}
