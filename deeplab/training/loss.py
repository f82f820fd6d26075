"""The original's softmax cross entropy: ignored pixels, class weights, hard pixel mining."""

from collections.abc import Mapping
from typing import Any

import tensorflow as tf

from deeplab.config import TrainingConfig
from deeplab.model.layers import resize_bilinear, resize_nearest

Tensor = Any


def segmentation_losses(
    logits_by_scale: Mapping[str, Tensor],
    labels: Tensor,
    ignore_label: int,
    config: TrainingConfig,
    step: Tensor,
) -> list[Tensor]:
    """One loss per entry of one output's logits; the total is their sum.

    Args:
        logits_by_scale: name -> float32 [batch, h, w, classes].
        labels: int32 [batch, height, width, 1]; a label outside the classes costs nothing but is counted.
        ignore_label: value of pixels that neither cost nor count.
        config: resolution of the loss, class weights, mining.
        step: completed steps, integer scalar; ramps the mining.

    Returns:
        float32 scalars.
    """
    return [_loss(logits, labels, ignore_label, config, step) for logits in logits_by_scale.values()]


def _loss(logits: Tensor, labels: Tensor, ignore_label: int, config: TrainingConfig, step: Tensor) -> Tensor:
    if config.upsample_logits:
        logits = resize_bilinear(logits, *_size(labels))
    else:
        labels = resize_nearest(labels, *_size(logits))
    classes = int(logits.shape[-1])
    labels = tf.reshape(labels, [-1])
    counted = tf.not_equal(labels, ignore_label)
    known = counted & (labels >= 0) & (labels < classes)
    targets = tf.where(known, labels, 0)
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(targets, tf.reshape(logits, [-1, classes]))
    weights = tf.cast(known, tf.float32)
    if config.label_weights is not None:
        weights *= tf.gather(tf.constant(config.label_weights, tf.float32), targets)
    losses *= weights
    if config.top_k_percent_pixels == 1.0:
        # Class weights are not in the divisor: it counts pixels.
        return tf.reduce_sum(losses) / tf.maximum(1e-5, tf.reduce_sum(tf.cast(counted, tf.float32)))
    return _hardest(losses, config, step)


def _hardest(losses: Tensor, config: TrainingConfig, step: Tensor) -> Tensor:
    """Mean of the non-zero losses among the share of pixels with the highest; all pixels make up the share."""
    pixels = tf.cast(tf.size(losses), tf.float32)
    share = tf.constant(config.top_k_percent_pixels)
    if config.hard_example_mining_step:
        ramp = tf.minimum(1.0, tf.cast(step, tf.float32) / float(config.hard_example_mining_step))
        share = ramp * share + (1.0 - ramp)
    top = tf.math.top_k(losses, k=tf.cast(share * pixels, tf.int32), sorted=True).values
    present = tf.reduce_sum(tf.cast(tf.not_equal(top, 0.0), tf.float32))
    return tf.reduce_sum(top) / tf.maximum(1e-5, present)


def _size(images: Tensor) -> tuple[Any, Any]:
    static, dynamic = images.shape, tf.shape(images)
    height, width = (static[axis] if static[axis] is not None else dynamic[axis] for axis in (1, 2))
    return height, width
