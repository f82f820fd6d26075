"""What every registered backbone must do; being registered is enough to be tested."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
import tf_slim as slim

from deeplab.backbones import BACKBONES
from deeplab.config import ExportConfig, ModelConfig, TrainingConfig, validate
from deeplab.config.network_rules import feature_stride
from deeplab.config.variants import VARIANTS as KNOWN
from deeplab.data.datasets import get_dataset
from deeplab.export.frozen_graph import build_frozen_graph
from deeplab.model import layers
from deeplab.model.checkpoint import locate, write_checkpoint
from deeplab.model.layers import INFERENCE
from deeplab.model.network import SEMANTIC, Network
from deeplab.model.variables import VariableStore
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


# The deeper sisters of variants that the default run takes: same code, minutes more.
DEEP = {"xception_65", "xception_71", "resnet_v1_101", "resnet_v1_101_beta", "nas_hnasnet"}
VARIANTS = [pytest.param(name, marks=[pytest.mark.long] if name in DEEP else []) for name in sorted(BACKBONES)]


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def test_the_checks_before_tensorflow_know_every_backbone() -> None:
    known = {name: set(variant.decoder_strides) for name, variant in KNOWN.items()}
    assert known == {name: set(backbone.decoder_end_points) for name, backbone in BACKBONES.items()}


@pytest.mark.parametrize(
    ("variant", "output_stride", "option"),
    [
        ("nas_hnasnet", 16, None),
        ("nas_hnasnet", 16, "nas_use_classification_head"),
        ("nas_pnasnet", 32, None),
        ("nas_pnasnet", 32, "nas_remove_os32_stride"),
    ],
)
def test_where_a_searched_network_ends(variant: str, output_stride: int, option: str | None) -> None:
    options = {"add_image_level_feature": False, **({option: True} if option else {})}
    config = validate(ModelConfig, _flags(variant, output_stride=output_stride, **options))
    store, backbone = VariableStore(), BACKBONES[variant]

    def build(images: tf.Tensor) -> Any:
        with store.scope(), slim.arg_scope(layers.arg_scope(INFERENCE, store)):
            return backbone.build(images, config)[0]

    function = tf.function(build, autograph=False).get_concrete_function(tf.TensorSpec([1, SIZE, SIZE, 3]))
    assert function.output_shapes[1] == _side(feature_stride(config))


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


def test_saved_loaded_and_exported_it_gives_the_same_output(variant: str, tmp_path: Path) -> None:
    store = VariableStore(seed=7)
    network = Network(validate(ModelConfig, _flags(variant)), CLASSES, (SIZE, SIZE), store)
    photo = _images()[0].numpy().astype(np.uint8)
    inputs = tf.constant(photo[np.newaxis], tf.float32)
    _, probabilities = tf.function(network.predict, autograph=False)(inputs)[SEMANTIC]
    write_checkpoint(tmp_path / "model.ckpt-1", {name: value.numpy() for name, value in store.variables.items()})

    given = {**_flags(variant), "num_classes": CLASSES, "crop_size": f"{SIZE},{SIZE}"}
    config = validate(ExportConfig, {**given, "checkpoint_path": "-", "export_path": "-"})
    graph = build_frozen_graph(config, locate(tmp_path).read())
    wrapped = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    tensors = [wrapped.graph.get_tensor_by_name(f"{name}:0") for name in ("ImageTensor", "SemanticProbabilities")]
    exported = wrapped.prune(*tensors)(tf.constant(photo[np.newaxis]))
    # Random weights make some logits huge: a rounding error of theirs is visible in a probability.
    assert np.abs(exported - probabilities).max() <= 1e-3


def test_gradients_reach_every_trainable_variable(variant: str) -> None:
    given = {**_flags(variant), "dataset_dir": "-", "train_logdir": "-", "train_crop_size": f"{SIZE},{SIZE}"}
    trainer = Trainer(validate(TrainingConfig, {**given, "train_batch_size": 2}), get_dataset("sample"))
    labels = tf.constant(np.random.default_rng(4).integers(0, CLASSES, (2, SIZE, SIZE, 1)), tf.int32)
    total, gradients = tf.function(trainer.gradients, autograph=False)(_images(2), labels)
    assert np.isfinite(float(total))
    assert set(gradients) == set(trainer.store.trainable_names)
    assert all(np.isfinite(gradient.numpy()).all() for gradient in gradients.values())
    assert not [name for name, gradient in gradients.items() if not np.any(gradient)]
