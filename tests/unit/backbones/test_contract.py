"""What every registered backbone must do; being registered is enough to be tested."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim
from PIL import Image

from deeplab.backbones import BACKBONES
from deeplab.config import ExportConfig, ModelConfig, TrainingConfig, validate
from deeplab.data.datasets import get_dataset
from deeplab.export.frozen_graph import build_frozen_graph
from deeplab.inference.segmenter import Segmenter
from deeplab.model import layers
from deeplab.model.checkpoint import locate, write_checkpoint
from deeplab.model.layers import INFERENCE
from deeplab.model.network import SEMANTIC, Network
from deeplab.model.variables import ConstantStore, VariableStore
from deeplab.training.trainer import Trainer

SIZE, CLASSES = 65, 9
# Narrow wherever the family can be: the contract is about structure, not capacity.
SMALL = {"aspp_convs_filters": 8, "decoder_filters": 8, "nas_stem_output_num_conv_filters": 4}
# Features sampled from the dense ones equal the strided ones, but where a mean over the picture or another arrangement
# of cells comes in.
NOT_DENSE = {"mobilenet_v3_large_seg", "mobilenet_v3_small_seg", "nas_pnasnet", "nas_hnasnet"}


def _flags(variant: str, **flags: Any) -> dict[str, Any]:
    strides = BACKBONES[variant].decoder_end_points
    decoder = {"decoder_output_stride": str(min(strides))} if strides else {}
    narrow = {"depth_multiplier": 0.25} if variant.startswith("mobilenet") else {}
    return {"model_variant": variant, "output_stride": 8, **SMALL, **narrow, **decoder, **flags}


def _images(count: int = 1) -> tf.Tensor:
    return tf.constant(np.random.default_rng(3).uniform(0, 255, (count, SIZE, SIZE, 3)), tf.float32)


@pytest.fixture(params=sorted(BACKBONES))
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def _features(variant: str, output_stride: int, store: VariableStore) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    backbone = BACKBONES[variant]
    config = validate(ModelConfig, _flags(variant, output_stride=output_stride))

    def build(images: tf.Tensor) -> Any:
        with store.scope(), slim.arg_scope(layers.arg_scope(INFERENCE, store)):
            return backbone.build(backbone.normalize(images), config)

    features, end_points = tf.function(build, autograph=False)(_images())
    return features.numpy(), {name: value.numpy() for name, value in end_points.items()}


def _side(stride: int) -> int:
    return (SIZE - 1) // stride + 1


def test_end_points_have_their_strides(variant: str) -> None:
    store = VariableStore()
    features, end_points = _features(variant, 8, store)
    assert features.shape[1:3] == (_side(8), _side(8))
    for stride, names in BACKBONES[variant].decoder_end_points.items():
        for name in names:
            # At output stride 8 nothing beyond stride 8 is any smaller; searched networks go down and up again.
            allowed = {_side(stride), _side(8)}
            assert end_points[name].shape[1] in allowed, name
    assert all(name.startswith(f"{BACKBONES[variant].name_scope}/") for name in store.variables)
    if variant not in NOT_DENSE:
        strided, _ = _features(variant, 32, store)
        assert strided.shape[1:3] == (_side(32), _side(32))
        assert np.abs(features[:, ::4, ::4] - strided).max() <= 1e-4 * np.abs(strided).max()


def test_saved_and_loaded_it_gives_the_same_output(variant: str, tmp_path: Path) -> None:
    config = validate(ModelConfig, _flags(variant))
    store = VariableStore(seed=7)
    network = Network(config, CLASSES, (SIZE, SIZE), store)
    predict = tf.function(network.predict, autograph=False)
    _, probabilities = predict(_images())[SEMANTIC]
    write_checkpoint(tmp_path / "model.ckpt-1", {name: value.numpy() for name, value in store.variables.items()})

    values = locate(tmp_path).read()
    constants = ConstantStore(values)
    again = tf.function(Network(config, CLASSES, (SIZE, SIZE), constants).predict, autograph=False)
    _, loaded = again(_images())[SEMANTIC]
    constants.refuse_unused()
    # Random weights make some logits huge: a rounding error of theirs is visible in a probability.
    assert np.abs(loaded - probabilities).max() <= 1e-3

    export = {**_flags(variant), "num_classes": CLASSES, "crop_size": f"{SIZE},{SIZE}"}
    export |= {"checkpoint_path": "-", "export_path": "-"}
    segmenter = Segmenter(build_frozen_graph(validate(ExportConfig, export), values), (SIZE, SIZE))
    photo = Image.fromarray(_images()[0].numpy().astype(np.uint8))
    pixels = tf.constant(np.asarray(photo)[np.newaxis], tf.float32)
    expected = predict(pixels)[SEMANTIC][0].numpy()[0]
    assert np.mean(segmenter.segment(photo) == expected) > 0.999


def test_gradients_reach_every_trainable_variable(variant: str) -> None:
    given = {**_flags(variant), "dataset_dir": "-", "train_logdir": "-", "train_crop_size": f"{SIZE},{SIZE}"}
    trainer = Trainer(validate(TrainingConfig, {**given, "train_batch_size": 2}), get_dataset("sample"))
    labels = tf.constant(np.random.default_rng(4).integers(0, CLASSES, (2, SIZE, SIZE, 1)), tf.int32)
    total, gradients = tf.function(trainer.gradients, autograph=False)(_images(2), labels)
    assert np.isfinite(float(total))
    assert set(gradients) == set(trainer.store.trainable_names)
    assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients.values())
    assert not [name for name, gradient in gradients.items() if not np.any(gradient)]
