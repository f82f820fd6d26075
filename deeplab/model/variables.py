"""A model's variables, keyed by their original names.

slim functions ask for variables by name; the store answers. While training it holds ``tf.Variable``s, created once
and shared by every trace; for a frozen graph it hands out constants instead. Nothing depends on TensorFlow's own
graph collections.
"""

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deeplab.errors import CheckpointError

Array = npt.NDArray[Any]
# Shape and generator in, float32 values out.
Initializer = Callable[[tuple[int, ...], np.random.Generator], Array]


class VariableStore:
    """Name -> variable, with the L2 coefficient of each regularised one.

    Args:
        seed: initial values are a function of this and of the variable's name, whatever the order of creation.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self.variables: dict[str, tf.Variable] = {}
        self.trainable_names: list[str] = []
        self.l2_coefficients: dict[str, float] = {}
        # None: batch norms use their own decay; else a scalar that replaces it (statistics re-estimation).
        self.batch_norm_decay: tf.Variable | None = None
        # int32 [2], the seed of what this step drops; set by whoever traces a training step.
        self.dropout_seed: tf.Tensor | None = None
        # float32 scalar 0..1, the share of the training that is done; ramps drop path.
        self.training_progress: tf.Tensor | None = None

    @contextmanager
    def scope(self) -> Iterator[None]:
        """Within this block, slim's variables come from the store."""
        with tf.compat.v1.variable_scope("", custom_getter=self._get, auxiliary_name_scope=False):
            yield

    def _get(self, getter: Any, name: str, **request: Any) -> Any:
        if name not in self.variables:
            with tf.init_scope():
                self.variables[name] = self._create(name, request)
        regularizer = request.get("regularizer")
        if regularizer is not None:
            self.l2_coefficients[name] = regularizer.coefficient
        return self.variables[name]

    def _create(self, name: str, request: Mapping[str, Any]) -> tf.Variable:
        shape = tuple(int(size) for size in request["shape"])
        generator = np.random.default_rng([self._seed, zlib.crc32(name.encode())])
        value = request["initializer"](shape, generator).astype(np.float32)
        trainable = bool(request["trainable"])
        if trainable:
            self.trainable_names.append(name)
        return tf.Variable(value, trainable=trainable, name=name)

    def draw_seed(self) -> tf.Tensor | None:
        """A new seed derived from ``dropout_seed``, int32 [2]; None outside a training step."""
        if self.dropout_seed is None:
            return None
        self.dropout_seed = tf.random.experimental.stateless_fold_in(self.dropout_seed, 1)
        return self.dropout_seed

    @property
    def trainable(self) -> list[tf.Variable]:
        """The trainable variables in order of creation."""
        return [self.variables[name] for name in self.trainable_names]

    def regularization_loss(self) -> tf.Tensor:
        """Sum over regularised variables of coefficient * sum(w^2) / 2; float32 scalar."""
        terms = [c * tf.nn.l2_loss(self.variables[name]) for name, c in self.l2_coefficients.items() if c]
        return tf.add_n(terms) if terms else tf.constant(0.0)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every variable, in order of creation."""
        return {name: tuple(variable.shape) for name, variable in self.variables.items()}


class ConstantStore(VariableStore):
    """Hands out constants of the graph under construction: what a frozen graph consists of.

    Args:
        values: name -> float32 value of every variable that the model asks for.
    """

    def __init__(self, values: Mapping[str, Array]) -> None:
        super().__init__()
        self._values = values
        self._constants: dict[tuple[int, str], tf.Tensor] = {}

    def _get(self, getter: Any, name: str, **request: Any) -> Any:
        if name not in self._values:
            raise CheckpointError(
                f"the checkpoint has no variable {name!r}: it belongs to another model; check the model flags"
            )
        value = self._values[name]
        if tuple(value.shape) != tuple(int(size) for size in request["shape"]):
            raise CheckpointError(
                f"variable {name!r} has shape {list(value.shape)} in the checkpoint and "
                f"{[int(size) for size in request['shape']]} in the model; check num_classes and the model flags"
            )
        graph = tf.compat.v1.get_default_graph()
        key = (id(graph), name)
        if key not in self._constants:
            with graph.name_scope(""), tf.control_dependencies(None):
                self._constants[key] = tf.constant(value, name=name)
        return self._constants[key]

    def refuse_unused(self) -> None:
        """Refuse a network that leaves parts of the checkpoint's head unused: its flags are not those of training.

        A network without its decoder restores without complaint, for ASPP and decoder have equally many channels,
        and predicts nonsense.

        Raises:
            CheckpointError: naming the flag that brings the unused part in.
        """
        used = {name for _, name in self._constants}
        left = [name for name in self._values if name not in used and not is_slot(name)]
        for scope, remedy in _HEAD_FLAGS.items():
            unused = [name for name in left if name.startswith(scope)]
            if unused:
                raise CheckpointError(
                    f"the checkpoint holds {unused[0]} and {len(unused) - 1} more of {scope.rstrip('/')} that the "
                    f"model does not use; {remedy}"
                )


# What a part of the head is brought in by.
_HEAD_FLAGS = {
    "decoder/": "pass the --decoder_output_stride it was trained with, such as 4",
    "image_pooling/": "pass --add_image_level_feature=true",
    "aspp": "pass as many --atrous_rates as it was trained with, such as 6, 12 and 18",
    "concat_projection/": "pass --aspp_with_concat_projection=true",
    "meta_architecture/": "pass the --dense_prediction_cell_json it was trained with",
}


def is_slot(name: str) -> bool:
    """Whether a name in a checkpoint is an optimiser's or an average's, not the model's."""
    return name.endswith(("/Momentum", "/Adam", "/Adam_1", "/ExponentialMovingAverage"))
