"""Layers with the original's variable names, on tf_slim's arg scopes.

All tensors are NHWC, float32. Two facts of TensorFlow shape this file: slim's own batch norm averages its moving
statistics across replicas one variable at a time, and its convolutions rest on Keras layers that TensorFlow no
longer maintains. Both are small, so both are written here, on ``slim.model_variable``.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.model import initializers
from deeplab.model.variables import Initializer, VariableStore

Tensor = Any
Activation = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class L2:
    """A regulariser: the store notes its coefficient and sums coefficient * sum(w^2) / 2."""

    coefficient: float


@dataclass(frozen=True)
class Mode:
    """How a pass through the network runs.

    Attributes:
        training: dropout is active.
        batch_statistics: batch norm normalises by the batch and updates its moving statistics.
        weight_decay: L2 coefficient of regularised kernels.
        drop_path_keep_prob: see ``drop_path``.
    """

    training: bool = False
    batch_statistics: bool = False
    weight_decay: float = 0.0
    drop_path_keep_prob: float = 1.0


INFERENCE = Mode()


def arg_scope(mode: Mode, store: VariableStore) -> Any:
    """The arg scope under which a whole network is built."""
    with (
        slim.arg_scope([conv2d, separable_conv2d], weights_regularizer=L2(mode.weight_decay)),
        slim.arg_scope([batch_norm], is_training=mode.batch_statistics, store=store),
        slim.arg_scope([drop_path], keep_prob=mode.drop_path_keep_prob),
        slim.arg_scope([dropout, drop_path], is_training=mode.training, store=store) as scope,
    ):
        return scope


@slim.add_arg_scope
def batch_norm(
    inputs: Tensor,
    *,
    decay: float = 0.999,
    epsilon: float = 0.001,
    is_training: bool = False,
    store: VariableStore | None = None,
    scope: str = "BatchNorm",
) -> Tensor:
    """Batch normalisation with scale and offset.

    Args:
        inputs: [batch, height, width, channels].
        decay: share of the moving statistics that survives an update.
        epsilon: added to the variance.
        is_training: normalise by the batch's biased statistics and update the moving ones; the moving variance
            receives the unbiased estimate (n / (n - 1)), as the original's fused kernel does.
        store: may replace ``decay`` (``store.batch_norm_decay``).
        scope: name of the variable scope.
    """
    channels = [int(inputs.shape[-1])]
    with tf.compat.v1.variable_scope(scope):
        gamma = slim.model_variable("gamma", channels, initializer=initializers.constant(1))
        beta = slim.model_variable("beta", channels, initializer=initializers.constant(0))
        mean = slim.model_variable("moving_mean", channels, initializer=initializers.constant(0), trainable=False)
        variance = slim.model_variable(
            "moving_variance", channels, initializer=initializers.constant(1), trainable=False
        )
    if not is_training:
        return tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, mean=mean, variance=variance, epsilon=epsilon, is_training=False
        )[0]
    outputs, batch_mean, batch_variance = tf.compat.v1.nn.fused_batch_norm(
        inputs, gamma, beta, epsilon=epsilon, is_training=True
    )
    kept = store.batch_norm_decay if store is not None and store.batch_norm_decay is not None else decay
    for moving, value in ((mean, batch_mean), (variance, batch_variance)):
        moving.assign_sub((moving - value) * (1.0 - kept))
    return outputs


@slim.add_arg_scope
def conv2d(
    inputs: Tensor,
    filters: int,
    kernel_size: int | tuple[int, int],
    *,
    stride: int = 1,
    rate: int = 1,
    padding: str = "SAME",
    activation_fn: Activation | None = tf.nn.relu,
    normalizer_fn: Callable[..., Tensor] | None = None,
    weights_initializer: Initializer | None = None,
    weights_regularizer: L2 | None = None,
    scope: str = "Conv",
) -> Tensor:
    """Convolution, then batch norm (or, without a normaliser, biases), then activation.

    Args:
        inputs: [batch, height, width, channels].
        filters: output channels.
        kernel_size: square side or (height, width), pixels.
        stride: step in both directions; 1 where ``rate`` exceeds 1.
        rate: dilation.
        padding: SAME or VALID.
        activation_fn: applied last; None for a linear layer.
        normalizer_fn: ``batch_norm`` or None.
        weights_initializer: of the kernel; Xavier by default.
        weights_regularizer: of the kernel.
        scope: name of the variable scope.

    Returns:
        [batch, height / stride, width / stride, filters].
    """
    height, width = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
    with tf.compat.v1.variable_scope(scope):
        weights = slim.model_variable(
            "weights",
            [height, width, int(inputs.shape[-1]), filters],
            initializer=weights_initializer or initializers.xavier_uniform(),
            regularizer=weights_regularizer,
        )
        # ``tf.nn.convolution`` has a right gradient at every dilation on every device; ``tf.nn.conv2d`` has not.
        outputs = tf.nn.convolution(inputs, weights, strides=stride, padding=padding, dilations=rate)
        return _finish(outputs, filters, normalizer_fn, activation_fn)


@slim.add_arg_scope
def depthwise_conv2d(
    inputs: Tensor,
    kernel_size: int,
    *,
    stride: int = 1,
    rate: int | tuple[int, int] = 1,
    padding: str = "SAME",
    activation_fn: Activation | None = tf.nn.relu,
    normalizer_fn: Callable[..., Tensor] | None = None,
    weights_initializer: Initializer | None = None,
    weights_regularizer: L2 | None = None,
    scope: str = "depthwise",
) -> Tensor:
    """Depthwise convolution with channel multiplier 1; as ``conv2d``, but ``rate`` may be (height, width)."""
    channels = int(inputs.shape[-1])
    dilations = (rate, rate) if isinstance(rate, int) else rate
    with tf.compat.v1.variable_scope(scope):
        weights = slim.model_variable(
            "depthwise_weights",
            [kernel_size, kernel_size, channels, 1],
            initializer=weights_initializer or initializers.xavier_uniform(),
            regularizer=weights_regularizer,
        )
        # ``dilations`` here goes through space-to-batch: the kernel's own dilation has a wrong gradient on CPUs.
        outputs = tf.nn.depthwise_conv2d(
            inputs, weights, strides=[1, stride, stride, 1], padding=padding, dilations=dilations
        )
        return _finish(outputs, channels, normalizer_fn, activation_fn)


def _finish(
    outputs: Tensor,
    channels: int,
    normalizer_fn: Callable[..., Tensor] | None,
    activation_fn: Activation | None,
) -> Tensor:
    if normalizer_fn is not None:
        outputs = normalizer_fn(outputs)
    else:
        biases = slim.model_variable("biases", [channels], initializer=initializers.constant(0))
        outputs = tf.nn.bias_add(outputs, biases)
    return outputs if activation_fn is None else activation_fn(outputs)


@slim.add_arg_scope
def separable_conv2d(
    inputs: Tensor,
    filters: int,
    kernel_size: int,
    *,
    stride: int = 1,
    padding: str = "SAME",
    weights_initializer: Initializer | None = None,
    weights_regularizer: L2 | None = None,
    scope: str = "SeparableConv2d",
) -> Tensor:
    """Depthwise and pointwise convolution with nothing between or behind; both kernels are regularised."""
    channels, initializer = int(inputs.shape[-1]), weights_initializer or initializers.xavier_uniform()
    with tf.compat.v1.variable_scope(scope):
        depthwise, pointwise = (
            slim.model_variable(name, shape, initializer=initializer, regularizer=weights_regularizer)
            for name, shape in (
                ("depthwise_weights", [kernel_size, kernel_size, channels, 1]),
                ("pointwise_weights", [1, 1, channels, filters]),
            )
        )
    outputs = tf.nn.depthwise_conv2d(inputs, depthwise, strides=[1, stride, stride, 1], padding=padding)
    return tf.nn.convolution(outputs, pointwise, padding="VALID")


def split_separable_conv2d(inputs: Tensor, filters: int, kernel_size: int, rate: int, scope: str) -> Tensor:
    """Depthwise then pointwise convolution, each with batch norm and activation: the heads' separable layer.

    Initial values: truncated normal 0.33 and 0.06, as the original's heads.
    """
    outputs = depthwise_conv2d(
        inputs,
        kernel_size,
        rate=rate,
        weights_initializer=initializers.truncated_normal(0.33),
        scope=f"{scope}_depthwise",
    )
    return conv2d(
        outputs,
        filters,
        1,
        weights_initializer=initializers.truncated_normal(0.06),
        scope=f"{scope}_pointwise",
    )


@slim.add_arg_scope
def dropout(
    inputs: Tensor, keep_prob: float, *, is_training: bool = False, store: VariableStore | None = None
) -> Tensor:
    """Zero each value with probability 1 - keep_prob and scale the rest up; the identity at inference.

    The mask is a function of ``store.dropout_seed``, so that a resumed run draws the masks an unbroken one draws.
    Without a seed nothing is dropped.
    """
    seed = store.draw_seed() if is_training and store is not None else None
    if seed is None:
        return inputs
    return tf.nn.experimental.stateless_dropout(inputs, rate=1.0 - keep_prob, seed=seed)


@slim.add_arg_scope
def drop_path(
    inputs: Tensor,
    depth: float,
    *,
    keep_prob: float = 1.0,
    is_training: bool = False,
    store: VariableStore | None = None,
) -> Tensor:
    """Zero a whole image's features with a probability that grows with depth and with training's progress.

    Args:
        inputs: [batch, height, width, channels].
        depth: position in the network, 0..1; at 1 and at the end of training the path is kept with ``keep_prob``.
        keep_prob: 1 drops nothing.
        is_training: nothing is dropped at inference.
        store: holds the seed and the progress.
    """
    if not is_training or keep_prob == 1.0 or store is None or store.training_progress is None:
        return inputs
    kept = 1.0 - tf.minimum(1.0, store.training_progress) * depth * (1.0 - keep_prob)
    draw = tf.random.stateless_uniform([tf.shape(inputs)[0], 1, 1, 1], store.draw_seed())
    return inputs / kept * tf.floor(kept + draw)


def fixed_padding(inputs: Tensor, kernel_size: int, rate: int = 1) -> Tensor:
    """Pad height and width by the dilated kernel's size minus one, the smaller half first."""
    total = (kernel_size - 1) * rate
    sides = [total // 2, total - total // 2]
    return tf.pad(inputs, [[0, 0], sides, sides, [0, 0]])


def conv2d_same(inputs: Tensor, filters: int, kernel_size: int, *, stride: int, rate: int = 1, scope: str) -> Tensor:
    """Convolution whose padding does not depend on the input's size, unlike SAME's at strides above 1."""
    if stride == 1:
        return conv2d(inputs, filters, kernel_size, rate=rate, scope=scope)
    padded = fixed_padding(inputs, kernel_size, rate)
    return conv2d(padded, filters, kernel_size, stride=stride, rate=rate, padding="VALID", scope=scope)


def hard_swish(inputs: Tensor) -> Tensor:
    """X * relu6(x + 3) / 6 (MobileNet v3, section 5.2)."""
    return inputs * tf.nn.relu6(inputs + 3) * (1.0 / 6.0)


def q_sigmoid(inputs: Tensor) -> Tensor:
    """relu6(x + 3) * 0.16667: the constant is the original's, not exactly one sixth."""
    return tf.nn.relu6(inputs + 3) * 0.16667


def scale_dimension(size: Any, scale: float) -> Any:
    """``int((size - 1) * scale + 1)``, truncated: the size of a dimension after scaling with aligned corners.

    Args:
        size: pixels, a Python int or an int32 scalar tensor.
        scale: factor.
    """
    if isinstance(size, tf.Tensor):
        return tf.cast((tf.cast(size, tf.float32) - 1.0) * scale + 1.0, tf.int32)
    return int((float(size) - 1.0) * scale + 1.0)


def resize_bilinear(images: Tensor, height: Any, width: Any) -> Tensor:
    """Bilinear resize with aligned corners; [batch, h, w, channels] to [batch, height, width, channels]."""
    if isinstance(height, int) and isinstance(width, int) and tuple(images.shape[1:3]) == (height, width):
        return images
    return tf.raw_ops.ResizeBilinear(images=images, size=[height, width], align_corners=True)


def resize_nearest(images: Tensor, height: Any, width: Any) -> Tensor:
    """Nearest-neighbour resize with aligned corners; any numeric dtype, sizes as ``resize_bilinear``'s."""
    return tf.raw_ops.ResizeNearestNeighbor(images=images, size=[height, width], align_corners=True)
