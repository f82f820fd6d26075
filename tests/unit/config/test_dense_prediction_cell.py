import json
from pathlib import Path
from typing import Any

import pytest

from deeplab.config import ExportConfig, ModelConfig, ModelDescription, resolve, validate
from deeplab.errors import ConfigError

PUBLISHED = "dense_prediction_cell_branch5_top1_cityscapes.json"
BRANCH = {"op": "conv", "input": -1}


def test_the_published_cell_goes_by_its_name_and_travels_by_content() -> None:
    config = validate(ModelConfig, {"dense_prediction_cell_json": PUBLISHED})
    assert config.dense_prediction_cell is not None
    assert [branch.rate for branch in config.dense_prediction_cell] == [(1, 6), (18, 15), (6, 3), (1, 1), (6, 21)]
    description = ModelDescription.of(config, (65, 65), 19)
    assert PUBLISHED not in description.model_dump_json()
    again = resolve(ExportConfig, {"checkpoint_path": "a", "export_path": "b"}, description)
    assert again.dense_prediction_cell == config.dense_prediction_cell


def test_another_cell_contradicts_the_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "cell.json").write_text(json.dumps([BRANCH]))
    trained = ModelDescription.of(validate(ModelConfig, {"dense_prediction_cell_json": PUBLISHED}), (65, 65), 19)
    given = {"checkpoint_path": "a", "export_path": "b", "dense_prediction_cell_json": str(tmp_path / "cell.json")}
    with pytest.raises(ConfigError, match="contradicts the checkpoint"):
        resolve(ExportConfig, given, trained)
    assert resolve(ExportConfig, {**given, "dense_prediction_cell_json": PUBLISHED}, trained).num_classes == 19


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        ("{}", "expected a list of branches"),
        (json.dumps([{**BRANCH, "kernal": 3}]), "kernal"),
        (json.dumps([{**BRANCH, "input": 1}]), "branch 0 takes branch 1 as input"),
        (json.dumps([{**BRANCH, "op": "pyramid_pooling"}]), "needs a grid_size"),
        (None, f"no such file; name a JSON file or a published cell .{PUBLISHED}."),
    ],
)
def test_a_bad_cell(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "cell.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        validate(ModelConfig, {"dense_prediction_cell_json": str(path)})


def test_a_cell_needs_the_stride_its_rates_are_meant_for() -> None:
    flags: dict[str, Any] = {"dense_prediction_cell_json": PUBLISHED, "output_stride": 32}
    with pytest.raises(ConfigError, match="output_stride=32"):
        validate(ModelConfig, flags)
