from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.config import ModelConfig, validate
from deeplab.errors import CheckpointError
from deeplab.model import layers
from deeplab.model.network import Network
from deeplab.model.variables import ConstantStore, VariableStore

SMALL = {"depth_multiplier": 0.1, "aspp_convs_filters": 8, "decoder_filters": 8}


def _network(store: VariableStore, classes: int = 3, **flags: Any) -> Network:
    return Network(validate(ModelConfig, {**SMALL, **flags}), classes, (33, 33), store)


def _build(network: Network) -> None:
    tf.function(network.predict, autograph=False).get_concrete_function(tf.TensorSpec([1, 33, 33, 3]))


def _values(**flags: Any) -> dict[str, np.ndarray]:
    store = VariableStore()
    _build(_network(store, **flags))
    return {name: variable.numpy() for name, variable in store.variables.items()}


def test_constants_give_the_output_of_variables() -> None:
    store = VariableStore()
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (2, 33, 33, 3)), tf.float32)
    first = tf.function(_network(store).predict, autograph=False)(images)["semantic"]
    values = {name: variable.numpy() for name, variable in store.variables.items()}
    second = tf.function(_network(ConstantStore(values)).predict, autograph=False)(images)["semantic"]
    assert np.abs(first[1] - second[1]).max() < 1e-6


def test_a_head_that_stays_unused_is_refused() -> None:
    store = ConstantStore(_values(decoder_output_stride="4"))
    _build(_network(store))
    with pytest.raises(
        CheckpointError, match="of decoder that the model does not use; pass the --decoder_output_stride"
    ):
        store.refuse_unused()
    whole = ConstantStore(_values(decoder_output_stride="4"))
    _build(_network(whole, decoder_output_stride="4"))
    whole.refuse_unused()


def test_a_missing_or_misshapen_variable_is_named() -> None:
    with pytest.raises(CheckpointError, match="no variable 'aspp1_depthwise/depthwise_weights'"):
        _build(_network(ConstantStore(_values()), atrous_rates="6"))
    with pytest.raises(CheckpointError, match=r"'logits/semantic/weights' has shape \[1, 1, 8, 3\].*check num_classes"):
        _build(_network(ConstantStore(_values()), classes=4))


def test_multi_scale_prediction_averages_probabilities() -> None:
    network = _network(VariableStore())
    images = tf.constant(np.random.default_rng(0).uniform(0, 255, (1, 33, 33, 3)), tf.float32)
    labels, probabilities = tf.function(
        lambda batch: network.predict(batch, (0.5, 1.0), add_flipped_images=True)["semantic"], autograph=False
    )(images)
    assert np.allclose(probabilities.numpy().sum(-1), 1, atol=1e-5)
    assert np.array_equal(labels.numpy(), probabilities.numpy().argmax(-1))


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [(513, 1 / 16, 33), (64, 1 / 4, 16), (65, 0.5, 33), (10, 1.5, 14)]
)
def test_scale_dimension_truncates(size: int, scale: float, expected: int) -> None:
    assert layers.scale_dimension(size, scale) == expected
    assert int(layers.scale_dimension(tf.constant(size), scale)) == expected


def test_dropout_is_a_function_of_the_seed() -> None:
    store = VariableStore()
    inputs = tf.ones([1, 4, 4, 8])
    assert np.array_equal(layers.dropout(inputs, 0.5, is_training=True, store=store), inputs)
    results = []
    for seed in (1, 1, 2):
        store.dropout_seed = tf.constant([0, seed])
        results.append(layers.dropout(inputs, 0.5, is_training=True, store=store).numpy())
    assert np.array_equal(results[0], results[1])
    assert not np.array_equal(results[0], results[2])
    assert set(np.unique(results[0])) == {0.0, 2.0}


def test_drop_path_drops_whole_images_the_more_the_deeper_and_later() -> None:
    store = VariableStore()
    inputs = tf.ones([1000, 1, 1, 2])

    def kept(depth: float, progress: float) -> np.ndarray:
        store.dropout_seed, store.training_progress = tf.constant([0, 5]), tf.constant(progress)
        outputs = layers.drop_path(inputs, depth, keep_prob=0.5, is_training=True, store=store).numpy()
        assert np.array_equal(outputs[..., 0], outputs[..., 1])
        return outputs[:, 0, 0, 0]

    assert np.array_equal(kept(1.0, 0.0), np.ones(1000))
    late = kept(1.0, 1.0)
    assert set(late) == {0.0, 2.0}
    assert 0.4 < np.mean(late > 0) < 0.6
    half = kept(0.5, 1.0)
    assert 0.65 < np.mean(half > 0) < 0.85
    assert half.max() == pytest.approx(1 / 0.75)
    assert np.array_equal(layers.drop_path(inputs, 1.0, keep_prob=0.5, is_training=False, store=store), inputs)
