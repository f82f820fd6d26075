"""Variables, logits, predictions of every recorded configuration whose backbone is registered."""

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.backbones import BACKBONES
from deeplab.config import ModelConfig, validate
from deeplab.model.network import Network
from deeplab.model.variables import VariableStore

pytestmark = pytest.mark.parity
GOLDENS = Path(__file__).resolve().parents[3] / "shared" / "goldens"
# Tolerance of the goldens' README, relative to the largest absolute value of an array.
LOGITS = 2e-5


def _cases() -> list[Any]:
    path = GOLDENS / "models" / "configs.json"
    if not path.exists():
        return [pytest.param(None, marks=pytest.mark.skip("needs the folder 'shared' beside the repository"))]
    cases = json.loads(path.read_text())
    return [pytest.param(case, id=case["id"]) for case in cases if case["flags"]["model_variant"] in BACKBONES]


@pytest.mark.parametrize("case", _cases())
def test_network_equals_the_original(case: dict[str, Any], goldens: Path, weights: ModuleType) -> None:
    config = validate(ModelConfig, {name: value for name, value in case["flags"].items() if value is not None})
    store = VariableStore()
    network = Network(config, case["outputs"], tuple(case["crop_size"]), store)
    images = weights.images(case["batch"], *case["crop_size"], case["image_seed"])
    function = tf.function(lambda batch: (network.logits(batch), network.predict(batch)), autograph=False)
    function.get_concrete_function(tf.TensorSpec(images.shape, tf.float32))

    expected = json.loads((goldens / "models" / "vars" / f"{case['id']}.json").read_text())["variables"]
    found = [[name, list(shape), name in store.trainable_names] for name, shape in store.shapes().items()]
    assert sorted(found) == sorted(expected)

    for name, variable in store.variables.items():
        variable.assign(weights.variable(name, variable.shape, case["weight_seed"]))
    logits, predictions = function(tf.constant(images))
    recorded = np.load(goldens / "models" / "infer" / f"{case['id']}.npz")
    for key in recorded.files:
        kind, output, *rest = key.split("/")
        if kind == "logits":
            difference = np.abs(logits[output][rest[0]].numpy() - recorded[key]).max()
            assert difference <= LOGITS * np.abs(recorded[key]).max(), key
        elif kind == "prediction":
            assert np.array_equal(predictions[output][0].numpy(), recorded[key]), key
        elif kind == "prob":
            sampled = predictions[output][1].numpy()[:, ::8, ::8]
            assert np.abs(sampled - recorded[key]).max() <= LOGITS, key
