"""Which variables fine-tuning restores and how fast they learn, class weights, and the layers' own arithmetic."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.data.datasets import get_dataset
from deeplab.model import layers
from deeplab.model.variables import VariableStore
from deeplab.training.initialization import initialize
from deeplab.training.loss import segmentation_losses
from deeplab.training.optimizers import gradient_multipliers
from deeplab.training.trainer import Trainer
from tests.parity.conftest import read_cases, training_config

pytestmark = pytest.mark.parity
PATHS = {"dataset_dir": "-", "train_logdir": "-", "train_crop_size": "65,65", "train_batch_size": 2}
HELPERS = {case["id"]: case for case in read_cases("training_parts/helpers.json")}


@pytest.mark.parametrize("case", read_cases("training_parts/finetuning.json"), ids=lambda case: case["id"])
def test_finetuning_restores_and_speeds_up_the_same_variables(case: dict[str, Any]) -> None:
    flags = {name: value for name, value in case["flags"].items() if value is not None}
    factor = {"last_layer_gradient_multiplier": case["last_layer_gradient_multiplier"]}
    trainer = Trainer(training_config({**flags, **PATHS, **factor}), get_dataset("pascal_voc_seg"))
    everything = trainer.values()
    assert len(everything) == case["global_variable_count"]
    for key, expected in case["results"].items():
        kind, _, options = key.partition("/")
        rules = dict(option.split("=") for option in options.split(","))
        config = training_config({**flags, **PATHS, **factor, **rules})
        if kind == "multipliers":
            # The original also lists moving statistics, which have no gradient.
            names = trainer.store.trainable_names
            trained = {name: value for name, value in expected if name in names and value != 1.0}
            assert gradient_multipliers(config, names) == trained, key
        else:
            loaded = initialize(trainer, everything, config, "-").loaded
            left = set(everything) - set(loaded)
            assert (left == set(expected)) if kind == "not_restored" else (len(loaded) == expected), key


@pytest.mark.parametrize("case", read_cases("training_parts/label_weight_mask.json"), ids=lambda case: case["id"])
def test_label_weights_mask_the_loss(case: dict[str, Any]) -> None:
    """With equal logits every pixel's loss is log(classes), so the total tells the mask's sum."""
    weights, classes = case["label_weights"], case["num_classes"]
    per_class = weights if isinstance(weights, list) else [weights] * classes
    config = training_config({**PATHS, "label_weights": per_class})
    labels = tf.reshape(tf.constant(case["labels"]), [1, 1, -1, 1])
    logits = {"merged_logits": tf.zeros([1, 1, len(case["labels"]), classes])}
    (loss,) = segmentation_losses(logits, labels, case["ignore_label"], config, tf.constant(0))
    counted = sum(label != case["ignore_label"] for label in case["labels"])
    assert float(loss) == pytest.approx(np.log(classes) * sum(case["mask"]) / counted, rel=1e-6)


def test_scale_dimension() -> None:
    for size, scale, static, dynamic in HELPERS["scale_dimension"]["rows"]:
        assert layers.scale_dimension(size, scale) == static, (size, scale)
        assert int(layers.scale_dimension(tf.constant(size), scale)) == dynamic, (size, scale)


@pytest.fixture
def arrays(goldens: Path) -> Any:
    return np.load(goldens / "training_parts" / "helpers.npz")


def test_q_sigmoid(arrays: Any) -> None:
    found = layers.q_sigmoid(tf.constant(arrays["q_sigmoid/x"])).numpy()
    assert np.abs(found - arrays["q_sigmoid/y"]).max() <= 1e-6


@pytest.mark.parametrize("name", [name for name in HELPERS if name.startswith("resize_bilinear")])
def test_resize_bilinear(name: str, arrays: Any, weights: ModuleType) -> None:
    case = HELPERS[name]
    inputs = weights.normal(case["input_shape"], case["input_normal_seed"])
    found = layers.resize_bilinear(tf.constant(inputs), *case["size"]).numpy()
    assert np.abs(found - arrays[f"{name}/y"]).max() <= 1e-6


# No flag of the original reaches weight standardisation, so there is none here.
@pytest.mark.parametrize(
    "name",
    [name for name, case in HELPERS.items() if name.startswith("conv2d") and not case["weight_standardization"]],
)
def test_conv2d_same(name: str, arrays: Any, weights: ModuleType) -> None:
    case, store = HELPERS[name], VariableStore()
    inputs = tf.constant(weights.normal(case["input_shape"], case["input_normal_seed"]))

    def layer() -> tf.Tensor:
        with store.scope():
            return layers.conv2d_same(inputs, 5, 3, stride=case["stride"], rate=case["rate"], scope="c")

    function = tf.function(layer, autograph=False)
    function.get_concrete_function()
    for variable_name, variable in store.variables.items():
        variable.assign(weights.variable(variable_name, variable.shape, 0))
    assert [[name, list(shape)] for name, shape in store.shapes().items()] == case["variables"]
    expected = arrays[f"{name}/y"]
    assert np.abs(function().numpy() - expected).max() <= 2e-5 * np.abs(expected).max()
