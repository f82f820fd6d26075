"""The frozen graph: ``ImageTensor:0`` in, ``SemanticPredictions:0`` and ``SemanticProbabilities:0`` out.

Tensor names, types and shapes are the original's, so that programs written for its graphs run unchanged.
"""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import tensorflow as tf

from deeplab.config import ExportConfig
from deeplab.data.preprocessing import pad_to, resized_shape
from deeplab.model.layers import resize_bilinear, resize_nearest
from deeplab.model.network import SEMANTIC, Network
from deeplab.model.variables import ConstantStore

Tensor = Any
Array = npt.NDArray[Any]
INPUT_NAME = "ImageTensor"
PREDICTIONS_NAME, PROBABILITIES_NAME = "SemanticPredictions", "SemanticProbabilities"
RAW_PREDICTIONS_NAME, RAW_PROBABILITIES_NAME = "RawSemanticPredictions", "RawSemanticProbabilities"


def build_frozen_graph(config: ExportConfig, values: Mapping[str, Array]) -> tf.compat.v1.GraphDef:
    """Build the inference graph with the checkpoint's values as constants.

    ImageTensor is uint8 [1, height, width, 3], not larger than the crop (after the configured resize).
    SemanticPredictions is int32 [1, height, width]; SemanticProbabilities float32 [1, height, width, classes].
    The Raw tensors have the crop's size. Attributes at their defaults are left out, so that TensorFlow 1.15 reads
    the file.

    Raises:
        CheckpointError: if a variable is missing in ``values`` or has another shape.
        ConfigError: for options that the network does not have.
    """
    store = ConstantStore(values)
    network = Network(config, config.num_classes, config.crop_size, store)
    with tf.Graph().as_default() as graph:
        image = tf.compat.v1.placeholder(tf.uint8, [1, None, None, 3], name=INPUT_NAME)
        original_size = tf.shape(image)[1:3]
        prepared, prepared_size = _prepare(image, config, network.backbone.padding_pixel)
        labels, probabilities = network.predict(prepared, config.inference_scales, config.add_flipped_images)[SEMANTIC]
        store.refuse_unused()
        _name_outputs(labels, probabilities, prepared_size, original_size)
        names = [PREDICTIONS_NAME, PROBABILITIES_NAME, RAW_PREDICTIONS_NAME, RAW_PROBABILITIES_NAME]
        meta_graph = tf.compat.v1.train.export_meta_graph(graph=graph, strip_default_attrs=True)
    return tf.compat.v1.graph_util.extract_sub_graph(meta_graph.graph_def, names)


def _prepare(image: Tensor, config: ExportConfig, padding_pixel: tuple[float, ...]) -> tuple[Tensor, Tensor]:
    """Resize as configured and pad to the crop; returns the batch of one and its size before padding."""
    prepared = tf.cast(image, tf.float32)
    if config.min_resize_value is not None:
        prepared = resize_bilinear(prepared, *resized_shape(tf.shape(image)[1], tf.shape(image)[2], config))
    size = tf.shape(prepared)[1:3]
    padded = pad_to(prepared[0], *config.crop_size, tf.constant(padding_pixel, tf.float32))
    padded.set_shape([*config.crop_size, 3])
    return padded[tf.newaxis], size


def _name_outputs(labels: Tensor, probabilities: Tensor, prepared_size: Tensor, original_size: Tensor) -> None:
    """Cut the padding off, return to the size of the input, and give the tensors their names."""
    height, width = prepared_size[0], prepared_size[1]
    raw_labels = tf.identity(tf.cast(labels, tf.float32), name=RAW_PREDICTIONS_NAME)
    raw_probabilities = tf.identity(probabilities, name=RAW_PROBABILITIES_NAME)
    cut_labels = raw_labels[:, :height, :width, tf.newaxis]
    full_labels = resize_nearest(cut_labels, original_size[0], original_size[1])[..., 0]
    tf.cast(full_labels, tf.int32, name=PREDICTIONS_NAME)
    cut_probabilities = raw_probabilities[:, :height, :width]
    full_probabilities = resize_bilinear(cut_probabilities, original_size[0], original_size[1])
    tf.identity(full_probabilities, name=PROBABILITIES_NAME)
