"""Weights and images as functions of their names and seeds: the inputs that the recorded logits belong to.

NumPy's legacy generator has a frozen stream, so the same values come out of every version. The table of gains
(``compact/gains.json``) keeps activations of order one through deep networks; it has no other meaning.
"""

import json
import math
import re
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt

COMPACT = Path(__file__).parent / "compact"
_GAINS = [(re.compile(pattern), gain) for pattern, gain in json.loads((COMPACT / "gains.json").read_text())]
# Kernels of more inputs than this have their mean taken out.
_FEW_INPUTS = 8
_FRACTION_BITS = 16


def _generator(text: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(text.encode()))


def variable(name: str, shape: tuple[int, ...], seed: int = 0) -> npt.NDArray[np.float32]:
    """The value of a variable, float32, by its full name and shape."""
    generator = _generator(f"{seed}/{name}")
    gain = next(gain for pattern, gain in _GAINS if pattern.search(name))
    match name.rpartition("/")[2]:
        case "gamma":
            value = generator.uniform(0.7, 1.4, shape)
        case "moving_variance":
            value = generator.uniform(0.4, 1.6, shape)
        case "beta" | "moving_mean" | "biases":
            value = 0.2 * generator.standard_normal(shape)
        case "depthwise_weights":
            value = math.sqrt(gain / math.prod(shape[:2])) * generator.standard_normal(shape)
        case "weights" | "pointwise_weights":
            value, inputs = generator.standard_normal(shape), math.prod(shape[:-1])
            if inputs > _FEW_INPUTS:
                value -= value.mean(axis=tuple(range(len(shape) - 1)), keepdims=True)
            value *= math.sqrt(gain / inputs)
        case other:
            raise ValueError(f"no rule for a variable called {other}")
    return value.astype(np.float32)


def image(height: int, width: int, seed: int) -> npt.NDArray[np.float32]:
    """A picture, float32 [height, width, 3] in 0..255: a coarse grid enlarged, plus noise, in integers."""
    generator = _generator(f"image/{seed}/{height}/{width}/3")
    grid = generator.randint(0, 256, (6, 7, 3)).astype(np.int64)
    # Rounding makes the order matter: rows first become wide, then many.
    smooth = _enlarge(_enlarge(grid.swapaxes(0, 1), width).swapaxes(0, 1), height)
    noise = generator.randint(-24, 25, (height, width, 3))
    return np.clip(smooth + noise, 0, 255).astype(np.float32)


def _enlarge(grid: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Linear interpolation along the first axis, corners aligned, in fixed point."""
    place = np.arange(size) * ((len(grid) - 1) << _FRACTION_BITS) // max(size - 1, 1)
    low = np.minimum(place >> _FRACTION_BITS, len(grid) - 2)
    share = (place - (low << _FRACTION_BITS))[:, None, None]
    return (grid[low] * ((1 << _FRACTION_BITS) - share) + grid[low + 1] * share) >> _FRACTION_BITS
