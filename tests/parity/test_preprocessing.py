"""Resizing, padding, scaling, cropping and flipping against the original's, bit for bit.

Not compared, because no flag of any script reaches them: ``keep_aspect_ratio=False``, ``align_corners=False``, labels
with channels first or of floats, padding at the top or left, and vertical flips.
"""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.backbones import BACKBONES
from deeplab.config import EvaluationConfig, TrainingConfig, validate
from deeplab.data.preprocessing import _random_scale, augment, pad_to, resize_to_range
from tests.parity.conftest import read_cases

pytestmark = pytest.mark.parity

_UNREACHABLE = ("keep_aspect_ratio", "align_corners")
RESIZE = [
    case
    for case in read_cases("preprocess/resize_to_range.json")
    if not any(name in case for name in _UNREACHABLE) and case.get("label") not in ("chw", "float")
]
PARTS = read_cases("preprocess/pad_crop_flip_scale.json")
PAD = [
    case
    for case in PARTS
    if case["id"].startswith("pad_") and not case.get("batch") and case["offset_height"] == case["offset_width"] == 0
]
SCALES = [case for case in PARTS if case["id"].startswith("scales_") and case["values"]]
SCALE = [case for case in PARTS if case["id"].startswith("scale_")]
WHOLE = read_cases("preprocess/preprocess_image_and_label.json")
PIXELS = [case for case in read_cases("preprocess/mean_pixel.json") if case["kind"]]
# A seed of which augmentation makes either choice is found among so many.
_SEEDS = 40


def _identifier(case: dict[str, Any]) -> str:
    return str(case["id"])


@pytest.fixture(scope="module")
def recorded(goldens: Path) -> dict[str, Any]:
    """The arrays of every file."""
    names = ("resize_to_range", "pad_crop_flip_scale", "preprocess_image_and_label", "mean_pixel")
    arrays: dict[str, Any] = {}
    for name in names:
        with np.load(goldens / "preprocess" / f"{name}.npz") as file:
            arrays |= {key: file[key] for key in file.files}
    return arrays


def _pair(case: dict[str, Any], weights: ModuleType) -> tuple[Any, Any]:
    height, width, seed = case["height"], case["width"], case["seed"]
    label = weights.label(height, width, 21, seed, 255)
    image = tf.constant(weights.image(height, width, seed), tf.float32)
    return image, tf.constant(label.astype(np.int32)[..., None])


def _training(**values: Any) -> TrainingConfig:
    places = {"dataset_dir": "-", "train_logdir": "-", "dataset": "pascal_voc_seg"}
    return validate(TrainingConfig, {**places, **values})


@pytest.mark.parametrize("case", RESIZE, ids=_identifier)
def test_resize_to_range(case: dict[str, Any], weights: ModuleType, recorded: dict[str, Any]) -> None:
    image, label = _pair(case, weights)
    config = _training(
        min_resize_value=case["min_size"], max_resize_value=case["max_size"], resize_factor=case["factor"]
    )
    found = resize_to_range(image, label, config)
    np.testing.assert_array_equal(found[0].numpy(), recorded[f"{case['id']}/image"])
    if f"{case['id']}/label" in recorded:
        np.testing.assert_array_equal(found[1].numpy(), recorded[f"{case['id']}/label"])


@pytest.mark.parametrize("case", PAD, ids=_identifier)
def test_pad(case: dict[str, Any], weights: ModuleType, recorded: dict[str, Any]) -> None:
    image, label = _pair(case, weights)
    given = label if case.get("dtype") == "int32" else image
    found = pad_to(given, case["target_height"], case["target_width"], tf.constant(case["pad_value"], given.dtype))
    np.testing.assert_array_equal(found.numpy(), recorded[f"{case['id']}/out"])


@pytest.mark.parametrize("case", SCALES, ids=_identifier)
def test_scales_that_are_drawn(case: dict[str, Any]) -> None:
    config = _training(min_scale_factor=case["min"], max_scale_factor=case["max"], scale_factor_step_size=case["step"])
    drawn = (_random_scale(tf.constant([0, seed]), config) for seed in range(10 * _SEEDS))
    assert sorted({1.0 if scale is None else float(scale) for scale in drawn}) == pytest.approx(case["values"])


@pytest.mark.parametrize("case", SCALE, ids=_identifier)
def test_scale(case: dict[str, Any], weights: ModuleType, recorded: dict[str, Any]) -> None:
    image, label = _pair(case, weights)
    expected = recorded[f"{case['id']}/image"], recorded[f"{case['id']}/label"]
    crop = expected[0].shape[:2]
    scale = {"min_scale_factor": case["scale"], "max_scale_factor": case["scale"]}
    found = _augmented(image, label, _training(train_crop_size=crop, **scale), (0.0, 0.0, 0.0), 255, mirrored=False)
    _compare(found, expected)


def _augmented(
    image: Any, label: Any, config: TrainingConfig, padding: tuple[float, ...], ignore: int, *, mirrored: bool
) -> tuple[Any, Any]:
    """A training pair whose random flip went the wanted way; crops here leave no choice."""
    for number in range(_SEEDS):
        seed = tf.constant([1, number])
        flips = tf.random.experimental.stateless_split(seed, 4)[3]
        if bool(tf.random.stateless_uniform([], flips) < 0.5) == mirrored:
            return augment(image, label, seed, config, padding, ignore)
    raise AssertionError("no seed flips that way")


def _compare(found: tuple[Any, Any], expected: tuple[Any, Any]) -> None:
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    np.testing.assert_array_equal(found[1].numpy(), expected[1])


@pytest.mark.parametrize("case", WHOLE, ids=_identifier)
def test_whole_preprocessing(case: dict[str, Any], weights: ModuleType, recorded: dict[str, Any]) -> None:
    args = dict(case["args"])
    image, label = _pair(case, weights)
    crop = args.pop("crop_height"), args.pop("crop_width")
    variant, ignore = args.pop("model_variant"), args.pop("ignore_label", 255)
    padding = BACKBONES[variant].padding_pixel if variant else (123.15, 115.9, 103.06)
    expected = recorded[f"{case['id']}/processed_image"], recorded.get(f"{case['id']}/label")
    if args.pop("is_training"):
        unscaled = {"min_scale_factor": 1.0, "max_scale_factor": 1.0}  # the function's defaults, not the script's
        config = _training(train_crop_size=crop, **{**unscaled, **args})
        image, label = resize_to_range(image, label, config)
        found = _augmented(image, label, config, padding, ignore, mirrored=case["prob_of_flip"] > 0)
    else:
        places = {"dataset_dir": "-", "checkpoint_dir": "-", "eval_logdir": "-"}
        config = validate(EvaluationConfig, {**places, "eval_crop_size": crop, **args})
        image, label = resize_to_range(image, label, config)
        found = pad_to(image, *crop, tf.constant(padding, tf.float32)), pad_to(label, *crop, ignore)
    np.testing.assert_array_equal(found[0].numpy(), expected[0])
    if expected[1] is not None:
        np.testing.assert_array_equal(found[1].numpy(), expected[1])


@pytest.mark.parametrize("case", PIXELS, ids=_identifier)
def test_what_the_network_eats(case: dict[str, Any], weights: ModuleType, recorded: dict[str, Any]) -> None:
    backbone = BACKBONES[case["id"]]
    np.testing.assert_allclose(backbone.padding_pixel, case["pad_pixel"], rtol=1e-6)
    images = tf.constant(weights.image(5, 7, 3)[None], tf.float32)
    np.testing.assert_allclose(
        backbone.normalize(images).numpy(), recorded[f"{case['id']}/network_input"], rtol=0, atol=1e-6 * 255
    )
