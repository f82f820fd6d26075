"""Variables, logits, probabilities and predictions of every recorded configuration."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.config import ModelConfig, validate
from deeplab.model.network import Network
from deeplab.model.variables import VariableStore
from tests.parity.conftest import read_cases

pytestmark = pytest.mark.parity
# Tolerances of the goldens' README. Logits and probabilities: relative to the largest absolute value of an array.
LOGITS = 2e-5
# Labels: the share of pixels that may differ, and how far apart their two best logits may be, relative to the range.
# Which of two equally good classes wins is decided by the last bits, and those by the machine's instructions.
PIXELS, TIE = 1e-3, 1e-4


@pytest.mark.parametrize("case", read_cases("models/configs.json"), ids=lambda case: case["id"])
def test_network_equals_the_original(
    case: dict[str, Any], goldens: Path, weights: ModuleType, note_error: Callable[[str, float], None]
) -> None:
    flags = {name: value for name, value in case["flags"].items() if value is not None}
    config = validate(ModelConfig, {**flags, "image_pyramid": case.get("image_pyramid")})
    store = VariableStore()
    crop_size = None if case["crop_size"] is None else tuple(case["crop_size"])
    network = Network(config, case["outputs"], crop_size, store)
    images = weights.images(case["batch"], *(crop_size or case["input_size"]), case["image_seed"])
    scales, flips = case.get("eval_scales", [1.0]), case.get("add_flipped_images", False)
    function = tf.function(lambda batch: _outputs(network, batch, scales, flips), autograph=False)
    function.get_concrete_function(tf.TensorSpec(images.shape, tf.float32))

    expected = json.loads((goldens / "models" / "vars" / f"{case['id']}.json").read_text())["variables"]
    found = [[name, list(shape), name in store.trainable_names] for name, shape in store.shapes().items()]
    assert sorted(found) == sorted(expected)

    for name, variable in store.variables.items():
        variable.assign(weights.variable(name, variable.shape, case["weight_seed"]))
    found = {key: value.numpy() for key, value in function(tf.constant(images)).items()}
    recorded = np.load(goldens / "models" / "infer" / f"{case['id']}.npz")
    for key in recorded.files:
        if key.startswith("prediction"):
            note_error("pixels", np.mean(found[key] != recorded[key]))
            _assert_same_but_for_ties(found[key], recorded[key], found[key.replace("prediction", "full")])
        else:
            error = np.abs(found[key] - recorded[key]).max() / np.abs(recorded[key]).max()
            note_error(key.split("/")[0], error)
            assert error <= LOGITS, key


def _assert_same_but_for_ties(labels: np.ndarray, recorded: np.ndarray, probabilities: np.ndarray) -> None:
    """Labels ``[n, h, w]`` equal the recorded ones except where both classes are as probable ``[n, h, w, classes]``."""
    differ = labels != recorded
    assert np.mean(differ) <= PIXELS
    # The logarithms of a pixel's probabilities are its logits less a constant.
    logits = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    best, other = (
        np.take_along_axis(logits[differ], classes[differ][:, np.newaxis].astype(np.int64), axis=-1)
        for classes in (labels, recorded)
    )
    assert (best - other <= TIE * np.ptp(logits)).all()


def _outputs(network: Network, images: tf.Tensor, scales: list[float], flips: bool) -> dict[str, tf.Tensor]:
    """The recorded arrays, under their names, and the probabilities of every pixel."""
    outputs: dict[str, tf.Tensor] = {}
    for name, (labels, probabilities) in network.predict(images, scales, flips).items():
        # The original's probabilities of several passes are the softmax of what already is a mean of softmaxes.
        recorded = probabilities if scales == [1.0] else tf.nn.softmax(probabilities)
        outputs[f"prediction/{name}"], outputs[f"prob/{name}/stride8"] = labels, recorded[:, ::8, ::8]
        outputs[f"full/{name}"] = probabilities
    if scales == [1.0]:
        for name, entries in network.logits(images).items():
            outputs.update({f"logits/{name}/{scale}": logits for scale, logits in entries.items()})
        return outputs
    passes = [(scale, mirrored) for scale in scales for mirrored in ((False, True) if flips else (False,))]
    for number, (scale, mirrored) in enumerate(passes):
        for name, logits in network.pass_logits(images, scale, mirrored).items():
            outputs[f"logits/{name}/merged_logits/pass{number}"] = logits
    return outputs
