"""Searched networks: PNASNet's cell (Liu et al. 2018) and Auto-DeepLab's, here called hnasnet (Liu et al. 2019).

A network is a stem of stride 4 and twelve cells, each at a level: level l has stride 4 * 2^l. Batch norm decay 0.9997
and epsilon 0.001; initial kernels uniform with variance 1 / (3 fan-in): the original's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.backbones.record import Backbone
from deeplab.config import ModelConfig
from deeplab.model import layers
from deeplab.model.initializers import variance_scaling_uniform

Tensor = Any
_STEM_STRIDE = 4
# Output stride -> filters of the optional ImageNet head's strided convolutions; then 2048 at the end.
_HEAD_FILTERS = {8: 256, 16: 512, 32: 1024}
_HEAD_LAST_FILTERS = 2048
# Where the resolution may stay at stride 16 although the filters grow (``nas_remove_os32_stride``).
_DEEPEST_LEVEL = 3


@dataclass(frozen=True)
class _Genotype:
    """A searched cell and its arrangement.

    Attributes:
        combinations: five pairs of (operation, index of its input state); the pair's results are added and become the
            next state. States 0 and 1 are the two inputs.
        unused: states that go into the cell's output.
        levels: level of each cell, or output stride -> levels.
    """

    combinations: tuple[tuple[tuple[str, int], tuple[str, int]], ...]
    unused: tuple[int, ...]
    levels: Mapping[int, tuple[int, ...]] | tuple[int, ...]

    def levels_at(self, output_stride: int) -> tuple[int, ...]:
        return self.levels if isinstance(self.levels, tuple) else self.levels[output_stride]


_PNASNET = _Genotype(
    combinations=(
        (("separable_5x5_2", 1), ("max_pool_3x3", 1)),
        (("separable_7x7_2", 0), ("max_pool_3x3", 0)),
        (("separable_5x5_2", 0), ("separable_3x3_2", 0)),
        (("separable_3x3_2", 4), ("max_pool_3x3", 0)),
        (("separable_3x3_2", 1), ("none", 0)),
    ),
    unused=(2, 3, 4, 5, 6),
    levels={8: (1,) * 12, 16: (1,) * 4 + (2,) * 8, 32: (1,) * 4 + (2,) * 4 + (3,) * 4},
)
_HNASNET = _Genotype(
    combinations=(
        (("atrous_5x5", 1), ("separable_3x3_2", 0)),
        (("separable_3x3_2", 1), ("atrous_3x3", 0)),
        (("separable_3x3_2", 3), ("separable_3x3_2", 1)),
        (("separable_5x5_2", 4), ("separable_5x5_2", 2)),
        (("separable_5x5_2", 3), ("atrous_5x5", 5)),
    ),
    unused=(2, 3, 4, 5, 6),
    levels=(0, 0, 0, 1, 2, 1, 2, 2, 3, 3, 2, 1),
)


def build(images: Tensor, config: ModelConfig, *, genotype: _Genotype, scope: str) -> tuple[Tensor, dict[str, Tensor]]:
    """A variant's ``Backbone.build``. End points: ``Stem`` and ``Cell_N``, before their ReLU."""
    bare = slim.arg_scope([layers.conv2d], activation_fn=None, normalizer_fn=tf.identity)
    initializer = variance_scaling_uniform(1.0 / 3.0)
    initial = slim.arg_scope([layers.conv2d, layers.separable_conv2d], weights_initializer=initializer)
    batch_norms = slim.arg_scope([layers.batch_norm], decay=0.9997, epsilon=0.001)
    with tf.compat.v1.variable_scope(scope), bare, initial, batch_norms:
        previous, net = _stem(images)
        end_points = {"Stem": net}
        levels, level = genotype.levels_at(config.output_stride), 0
        for number, next_level in enumerate(levels):
            stride = 2 if next_level > level else 1
            stays = config.nas_remove_os32_stride and _DEEPEST_LEVEL in (level, next_level)
            inputs = net
            if next_level < level and not stays:
                inputs = layers.resize_bilinear(net, *(layers.scale_dimension(side, 2) for side in net.shape[1:3]))
            filters = int(config.nas_stem_output_num_conv_filters * 2.0**next_level)
            cell = _Cell(genotype, filters, 1 if stays else stride, (number + 1) / len(levels))
            with tf.compat.v1.variable_scope(f"cell_{number}"):
                previous, net = net, cell(inputs, previous)
            end_points[f"Cell_{number}"] = net
            level = next_level
        net = tf.nn.relu(net)
        if config.nas_use_classification_head:
            net = _classification_head(net, _STEM_STRIDE * 2**level, config.output_stride)
    return net, end_points


def _stem(images: Tensor) -> tuple[Tensor, Tensor]:
    """The first cell's two inputs, of stride 2 and 4."""
    net = layers.conv2d_same(images, 64, 3, stride=2, scope="conv0")
    net = tf.nn.relu(layers.batch_norm(net, scope="conv0_bn"))
    net = layers.conv2d_same(net, 64, 3, stride=1, scope="conv1")
    earlier = layers.batch_norm(net, scope="conv1_bn")
    net = layers.conv2d_same(tf.nn.relu(earlier), 128, 3, stride=2, scope="conv2")
    return earlier, layers.batch_norm(net, scope="conv2_bn")


def _classification_head(net: Tensor, reached: int, output_stride: int) -> Tensor:
    """On to stride 32 (dilated beyond the output stride) and 2048 channels, as trained on ImageNet."""
    for nominal, filters in _HEAD_FILTERS.items():
        if nominal > reached:
            stride, rate = (2, 1) if nominal <= output_stride else (1, nominal // output_stride)
            net = layers.conv2d_same(net, filters, 3, stride=stride, rate=rate, scope=f"downsample_os{nominal}_conv")
            net = tf.nn.relu(layers.batch_norm(net, scope=f"downsample_os{nominal}_bn"))
    net = layers.conv2d(net, _HEAD_LAST_FILTERS, 1, scope="classification_head_conv")
    return tf.nn.relu(layers.batch_norm(net, scope="classification_head_bn"))


@dataclass(frozen=True)
class _Cell:
    """One cell: ``cell(net, previous)`` gives [batch, height / stride, width / stride, 5 * filters]."""

    genotype: _Genotype
    filters: int
    stride: int
    depth: float

    def __call__(self, net: Tensor, previous: Tensor) -> Tensor:
        states = [self._current(net), self._previous(previous, net)]
        for number, (left, right) in enumerate(self.genotype.combinations):
            with tf.compat.v1.variable_scope(f"comb_iter_{number}"):
                with tf.compat.v1.variable_scope("left"):
                    first = self._operation(states, *left)
                with tf.compat.v1.variable_scope("right"):
                    second = self._operation(states, *right)
            states.append(first + second)
        return tf.concat([states[index] for index in self.genotype.unused], axis=3)

    def _current(self, net: Tensor) -> Tensor:
        net = layers.conv2d(tf.nn.relu(net), self.filters, 1, scope="1x1")
        return layers.batch_norm(net, scope="beginning_bn")

    def _previous(self, previous: Tensor, net: Tensor) -> Tensor:
        """Bring the input from two cells back to the current one's size and depth."""
        if previous.shape[2] != net.shape[2]:
            previous = layers.resize_bilinear(previous, int(net.shape[1]), int(net.shape[2]))
        if int(previous.shape[-1]) != self.filters:
            previous = layers.conv2d(tf.nn.relu(previous), self.filters, 1, scope="prev_1x1")
            previous = layers.batch_norm(previous, scope="prev_bn")
        return previous

    def _operation(self, states: list[Tensor], operation: str, index: int) -> Tensor:
        """Apply ``KIND_KxK[_N]`` to a state; only the cell's own inputs are strided."""
        net, stride = states[index], self.stride if index < 2 else 1
        if operation == "none":
            return self._identity(net, stride)
        kind, _, size = operation.partition("_" if not operation.startswith("max_pool") else "_pool_")
        kernel, *repetitions = (int(part.partition("x")[0]) for part in size.split("_"))
        apply: dict[str, Callable[..., Tensor]] = {
            "separable": partial(self._separable, repetitions=sum(repetitions)),
            "atrous": self._atrous,
            "max": self._max_pool,
        }
        return layers.drop_path(apply[kind](net, kernel, stride), self.depth)

    def _separable(self, net: Tensor, kernel: int, stride: int, *, repetitions: int) -> Tensor:
        for number in range(1, repetitions + 1):
            name = f"{kernel}x{kernel}_{number}"
            net, padding = tf.nn.relu(net), "SAME"
            if stride > 1:
                net, padding = layers.fixed_padding(net, kernel), "VALID"
            net = layers.separable_conv2d(
                net, self.filters, kernel, stride=stride, padding=padding, scope=f"separable_{name}"
            )
            net, stride = layers.batch_norm(net, scope=f"bn_sep_{name}"), 1
        return net

    def _atrous(self, net: Tensor, kernel: int, stride: int) -> Tensor:
        """Dilated by 2; at stride 2 the input is halved instead and the kernel undilated."""
        net, rate, name = tf.nn.relu(net), 2, f"{kernel}x{kernel}"
        if stride > 1:
            net, rate = layers.resize_bilinear(net, *(layers.scale_dimension(int(s), 0.5) for s in net.shape[1:3])), 1
        net = layers.conv2d(net, self.filters, kernel, rate=rate, scope=f"atrous_{name}")
        return layers.batch_norm(net, scope=f"bn_atr_{name}")

    def _max_pool(self, net: Tensor, kernel: int, stride: int) -> Tensor:
        net = tf.nn.max_pool2d(net, kernel, stride, "SAME")
        return net if int(net.shape[-1]) == self.filters else self._project(net, 1)

    def _identity(self, net: Tensor, stride: int) -> Tensor:
        if stride == 1 and int(net.shape[-1]) == self.filters:
            return net
        return self._project(tf.nn.relu(net), stride)

    def _project(self, net: Tensor, stride: int) -> Tensor:
        return layers.batch_norm(layers.conv2d(net, self.filters, 1, stride=stride, scope="1x1"), scope="bn_1")


def _variant(name: str, genotype: _Genotype, end_points: tuple[str, str, str]) -> Backbone:
    scope = name.removeprefix("nas_")
    return Backbone(
        name=name,
        name_scope=scope,
        build=partial(build, genotype=genotype, scope=scope),
        decoder_end_points={stride: (point,) for stride, point in zip((4, 8, 16), end_points, strict=True)},
    )


VARIANTS = (
    _variant("nas_pnasnet", _PNASNET, ("Stem", "Cell_3", "Cell_7")),
    _variant("nas_hnasnet", _HNASNET, ("Cell_2", "Cell_5", "Cell_7")),
)
