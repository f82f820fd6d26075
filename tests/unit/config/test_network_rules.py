from typing import Any

import pytest

from deeplab.config import CONFIGS, SummaryConfig, resolve
from deeplab.errors import ConfigError
from tests.parity.conftest import read_cases

REQUIRED = {
    "train": {"dataset_dir": "-", "train_logdir": "-"},
    "evaluate": {"dataset_dir": "-", "checkpoint_dir": "-", "eval_logdir": "-"},
    "export": {"checkpoint_path": "-", "export_path": "-"},
    "predict": {"model": "-", "images": "-", "output_dir": "-"},
}
GATED = {"aspp_with_squeeze_and_excitation": "true", "aspp_with_concat_projection": "false"}
PNAS = {"model_variant": "nas_pnasnet", "nas_remove_os32_stride": "true", "output_stride": "32"}


def _message(stage: str, flags: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as error:
        resolve(CONFIGS[stage], {**REQUIRED[stage], **flags})
    message = str(error.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("stage", REQUIRED)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"model_variant": "mobilenet_v22"}, "--model_variant=mobilenet_v22: unknown, one of mobilenet_edgetpu,"),
        ({"model_variant": "mobilenet_v22"}, "did you mean mobilenet_v2?"),
        ({"decoder_output_stride": "2"}, "=2: mobilenet_v2 has no end point at stride 2; it has 4, 8, 16"),
        ({"decoder_output_stride": "4,8"}, "--decoder_output_stride=4,8: give each stride once, the largest first"),
        ({"model_variant": "mobilenet_edgetpu", "decoder_output_stride": "4"}, "it has none, leave the flag out"),
        ({"model_variant": "xception_65", "multi_grid": "1,2"}, "--multi_grid=1,2: xception_65 takes 3 values"),
        ({"model_variant": "resnet_v1_18", "multi_grid": "1,2,4"}, "takes 2 values, such as 1,2"),
        ({"logits_kernel_size": "3"}, "needs --aspp_with_batch_norm=false"),
        ({"decoder_output_is_logits": "true"}, "needs --decoder_output_stride"),
        ({**GATED, "atrous_rates": "6,12"}, "--atrous_rates=6,12: the gate has the channels of one branch"),
        ({"model_variant": "nas_hnasnet", "output_stride": "16"}, "use --output_stride=8, --nas_use_classification"),
        (PNAS, "--nas_remove_os32_stride keeps the features of nas_pnasnet at stride 16"),
    ],
)
def test_a_network_that_cannot_be_is_refused_alike_by_every_stage(
    stage: str, flags: dict[str, str], message: str
) -> None:
    assert message in _message(stage, flags)


@pytest.mark.parametrize(
    ("stage", "flag"),
    [("train", "train_crop_size"), ("evaluate", "eval_crop_size"), ("export", "crop_size"), ("predict", "crop_size")],
)
def test_the_pooling_window_fits_into_the_crop(stage: str, flag: str) -> None:
    flags = {"image_pooling_crop_size": "769,769", "output_stride": "16", flag: "1025,513"}
    assert f"--image_pooling_crop_size=769,769 exceeds --{flag}=1025,513" in _message(stage, flags)
    # Both are 33 in units of the output stride; without the image-level feature the window is not used.
    for allowed in ({"image_pooling_crop_size": "520,520", flag: "513,513"}, {"add_image_level_feature": "false"}):
        resolve(CONFIGS[stage], {**REQUIRED[stage], **flags, **allowed})


def test_one_label_weight_a_class() -> None:
    assert "--label_weights: 2 values for the 21 classes of pascal_voc_seg; give one per class" in _message(
        "train", {"dataset": "pascal_voc_seg", "label_weights": ["1", "2"]}
    )
    resolve(CONFIGS["train"], {**REQUIRED["train"], "dataset": "sample", "label_weights": ["1"] * 9})


@pytest.mark.parametrize("stage", REQUIRED)
def test_a_decoder_that_gives_the_logits_has_a_channel_a_class(stage: str) -> None:
    flags = {"decoder_output_stride": "4", "decoder_output_is_logits": "true", "decoder_filters": "20"}
    classes = {"num_classes": "21"} if "num_classes" in CONFIGS[stage].model_fields else {"dataset": "pascal_voc_seg"}
    assert "decoder_filters (20) to equal the number of classes (21)" in _message(stage, {**flags, **classes})


def test_options_that_only_look_alike_are_left_alone() -> None:
    # No branch to gate, nothing to pool, and a head that follows the output stride.
    for flags in (
        {**GATED},
        {**GATED, "atrous_rates": "6", "add_image_level_feature": "false"},
        {"model_variant": "nas_hnasnet", "output_stride": "16", "nas_use_classification_head": "true"},
        {"model_variant": "nas_hnasnet", "output_stride": "16", "add_image_level_feature": "false"},
        {**PNAS, "output_stride": "16"},
        {"model_variant": "mobilenet_v2", "multi_grid": "1,2"},
        {"decoder_output_stride": "16,4", "output_stride": "8"},
    ):
        resolve(SummaryConfig, flags)


@pytest.mark.parity
@pytest.mark.parametrize(
    "case", [*read_cases("models/configs.json"), *read_cases("train/configs.json")], ids=lambda case: case["id"]
)
def test_no_recorded_network_is_refused(case: dict[str, Any]) -> None:
    known = SummaryConfig.model_fields
    flags = {name: value for name, value in case["flags"].items() if value is not None and name in known}
    crop = case.get("crop_size") or flags.get("train_crop_size") or case.get("input_size") or (65, 65)
    classes = case["outputs"] if "outputs" in case else {"semantic": case["num_classes"]}
    resolve(SummaryConfig, {**flags, "crop_size": crop, "num_classes": next(iter(classes.values()))})
