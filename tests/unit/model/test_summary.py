import json

import pytest

from deeplab.cli import main
from deeplab.config import SummaryConfig, validate
from deeplab.model.summary import summarize

# Billions of multiply-adds on the original's model zoo page, at crop 513 and output stride 16.
ZOO = [
    ({"model_variant": "mobilenet_v2"}, 2.75),
    ({"model_variant": "mobilenet_v2", "depth_multiplier": 0.5}, 0.88),
    ({"model_variant": "mobilenet_v2", "depth_multiplier": 0.5, "output_stride": 8}, 2.84),
    ({"model_variant": "xception_65", "atrous_rates": "6,12,18", "decoder_output_stride": "4"}, 54.17),
]


@pytest.mark.parametrize(("flags", "billions"), ZOO)
def test_multiply_adds_are_those_of_the_zoo(flags: dict[str, object], billions: float) -> None:
    assert summarize(validate(SummaryConfig, flags)).multiply_adds / 1e9 == pytest.approx(billions, rel=0.05)


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--decoder_output_stride=4", "--num_classes=151", "--crop_size=129,257", "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert set(content) == {"variables", "parameters", "multiply_adds", "end_points"}
    assert content["parameters"] == 2304519  # as recorded for the original
    assert len(content["variables"]) == 297
    assert content["variables"][0] == {"name": "MobilenetV2/Conv/weights", "shape": [3, 3, 3, 32], "trainable": True}
    assert content["end_points"]["layer_4/depthwise_output"] == 4
    assert content["end_points"]["features"] == 16


def test_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--crop_size=65,65"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["stage", "convs", "parameters", "multiply-adds"]
    assert any(line.startswith("MobilenetV2/expanded_conv_16") for line in lines)
    assert "272 variables; one image of 65x65 pixels (height x width)" in lines


def test_a_bad_flag_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["model", "--model_variant=xception_66"]) == 2
    assert "did you mean xception_6" in capsys.readouterr().err
