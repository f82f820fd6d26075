"""A small copy of the recorded numbers, one case per backbone, that guards every clone."""

import json
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.backbones import BACKBONES
from deeplab.config import ModelConfig, validate
from deeplab.model.network import MERGED, SEMANTIC, Network
from deeplab.model.variables import VariableStore
from tests.parity import deterministic

CASES = json.loads((deterministic.COMPACT / "cases.json").read_text())
LOGITS = np.load(deterministic.COMPACT / "logits.npz")


def test_every_backbone_is_guarded() -> None:
    assert {case["flags"]["model_variant"] for case in CASES} == set(BACKBONES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["flags"]["model_variant"])
def test_variables_and_logits(case: dict[str, Any]) -> None:
    store = VariableStore()
    network = Network(validate(ModelConfig, case["flags"]), case["classes"], tuple(case["crop_size"]), store)
    image = deterministic.image(*case["crop_size"], case["image_seed"])[np.newaxis]
    function = tf.function(network.logits, autograph=False)
    function.get_concrete_function(tf.TensorSpec(image.shape))
    found = [[name, list(shape), name in store.trainable_names] for name, shape in store.shapes().items()]
    assert sorted(found) == sorted(case["variables"])
    for name, variable in store.variables.items():
        variable.assign(deterministic.variable(name, tuple(variable.shape), case["weight_seed"]))
    logits, expected = function(tf.constant(image))[SEMANTIC][MERGED].numpy(), LOGITS[case["id"]]
    assert np.abs(logits - expected).max() <= 2e-5 * np.abs(expected).max()


@pytest.mark.parity
def test_the_inputs_are_those_of_the_whole_collection(weights: ModuleType) -> None:
    for case in CASES:
        for name, shape, _ in case["variables"]:
            expected = weights.variable(name, shape, case["weight_seed"])
            assert np.array_equal(deterministic.variable(name, tuple(shape), case["weight_seed"]), expected), name
        size, seed = case["crop_size"], case["image_seed"]
        assert np.array_equal(deterministic.image(*size, seed), weights.image(*size, seed))
