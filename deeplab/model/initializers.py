"""Initial values of variables, drawn by NumPy so that they depend on the seed and the name alone.

Constants are the original's: truncated normal 0.09 in MobileNet and Xception, 0.33 and 0.06 in separable heads,
0.01 in the classifier, Xavier in the remaining head convolutions.
"""

import numpy as np
import numpy.typing as npt

from deeplab.model.variables import Initializer

Array = npt.NDArray[np.float64]


def _truncated(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
    """Standard normal values, those beyond two standard deviations drawn again."""
    values = generator.standard_normal(shape)
    while (outside := np.abs(values) > 2).any():
        values[outside] = generator.standard_normal(int(outside.sum()))
    return values


def truncated_normal(stddev: float) -> Initializer:
    """Normal with ``stddev``, cut off at two of them."""
    return lambda shape, generator: stddev * _truncated(shape, generator)


def _fans(shape: tuple[int, ...]) -> tuple[float, float]:
    field = float(np.prod(shape[:-2]))
    return shape[-2] * field, shape[-1] * field


def xavier_uniform() -> Initializer:
    """Glorot and Bengio's uniform distribution (slim's default for convolutions)."""

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        limit = np.sqrt(6.0 / sum(_fans(shape)))
        return generator.uniform(-limit, limit, shape)

    return draw


def variance_scaling(factor: float = 2.0) -> Initializer:
    """Truncated normal with variance ``factor`` / fan-in (He et al. 2015; slim's default for ResNets).

    The truncation at two standard deviations loses some variance, which the constant 1.3 gives back.
    """

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        return np.sqrt(1.3 * factor / _fans(shape)[0]) * _truncated(shape, generator)

    return draw


def variance_scaling_uniform(factor: float) -> Initializer:
    """Uniform with variance ``factor`` / fan-in."""

    def draw(shape: tuple[int, ...], generator: np.random.Generator) -> Array:
        limit = np.sqrt(3.0 * factor / _fans(shape)[0])
        return generator.uniform(-limit, limit, shape)

    return draw


def constant(value: float) -> Initializer:
    """The same value everywhere."""
    return lambda shape, generator: np.full(shape, value)
