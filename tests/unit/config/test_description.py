from pathlib import Path

import pytest

from deeplab.config import EvaluationConfig, ExportConfig, ModelDescription, TrainingConfig, resolve
from deeplab.config.advice import rates_of_another_stride
from deeplab.errors import ConfigError

EXPORT = {"checkpoint_path": "a", "export_path": "b"}


@pytest.fixture
def description() -> ModelDescription:
    config = resolve(
        TrainingConfig,
        {
            "dataset_dir": "a",
            "train_logdir": "b",
            "atrous_rates": "6,12",
            "decoder_output_stride": "4",
            "min_resize_value": "257",
        },
    )
    return ModelDescription.of(config, (129, 193), 9, dataset="sample", ignore_label=255)


def test_a_later_stage_reads_what_training_knew(description: ModelDescription) -> None:
    export = resolve(ExportConfig, EXPORT, description)
    assert (export.num_classes, export.crop_size) == (9, (129, 193))
    assert (export.decoder_output_stride, export.atrous_rates) == ((4,), (6, 12))
    assert (export.output_stride, export.min_resize_value) == (16, 257)
    evaluation = resolve(EvaluationConfig, {"checkpoint_dir": "a", "eval_logdir": "b", "dataset_dir": "c"}, description)
    assert (evaluation.dataset, evaluation.eval_crop_size) == ("sample", (129, 193))


def test_run_time_fields_yield_to_a_flag(description: ModelDescription) -> None:
    given = {**EXPORT, "output_stride": "8", "atrous_rates": ["12", "24"], "crop_size": "257,257"}
    export = resolve(ExportConfig, given, description)
    assert (export.output_stride, export.atrous_rates, export.crop_size) == (8, (12, 24), (257, 257))


@pytest.mark.parametrize(
    ("name", "value", "trained"),
    [("decoder_output_stride", "8", "4"), ("num_classes", "21", "9"), ("depth_multiplier", "0.5", "1.0")],
)
def test_weights_may_not_be_contradicted(description: ModelDescription, name: str, value: str, trained: str) -> None:
    with pytest.raises(ConfigError) as error:
        resolve(ExportConfig, {**EXPORT, name: value}, description)
    assert f"--{name}={value}" in str(error.value)
    assert f"{name}={trained}" in str(error.value)


def test_repeating_the_trained_value_is_no_contradiction(description: ModelDescription) -> None:
    assert resolve(ExportConfig, {**EXPORT, "decoder_output_stride": "4"}, description).num_classes == 9


def test_as_many_rates_as_trained(description: ModelDescription) -> None:
    with pytest.raises(ConfigError, match="3 rates, but the checkpoint was trained with 2"):
        resolve(ExportConfig, {**EXPORT, "atrous_rates": "6,12,18"}, description)


def test_written_and_read_again(description: ModelDescription, tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    description.write(path)
    assert ModelDescription.read(path) == description
    assert str(tmp_path) not in path.read_text()


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "model.json"
    path.write_text('{"format": 1')
    with pytest.raises(ConfigError, match=r"model\.json: not a model description"):
        ModelDescription.read(path)


def test_a_run_time_field_can_be_taken_back(description: ModelDescription) -> None:
    assert resolve(ExportConfig, {**EXPORT, "min_resize_value": "none"}, description).min_resize_value is None
    with pytest.raises(ConfigError, match=r"--atrous_rates=\(none\): 0 rates, but the checkpoint was trained with 2"):
        resolve(ExportConfig, {**EXPORT, "atrous_rates": ["none"]}, description)
    with pytest.raises(ConfigError, match=r"--decoder_output_stride=\(unset\) contradicts"):
        resolve(ExportConfig, {**EXPORT, "decoder_output_stride": "none"}, description)
    with pytest.raises(ConfigError, match="--output_stride=none"):
        resolve(ExportConfig, {**EXPORT, "output_stride": "none"}, description)


@pytest.mark.parametrize("empty", ["", [""]])
def test_an_empty_value_is_not_given(description: ModelDescription, empty: object) -> None:
    given = {**EXPORT, "min_resize_value": "", "atrous_rates": empty, "crop_size": empty}
    export = resolve(ExportConfig, given, description)
    assert (export.min_resize_value, export.atrous_rates, export.crop_size) == (257, (6, 12), (129, 193))


def test_rates_of_another_stride(description: ModelDescription) -> None:
    def advice(trained: ModelDescription | None = description, **flags: object) -> str | None:
        return rates_of_another_stride(resolve(ExportConfig, {**EXPORT, **flags}, trained), trained)

    assert advice() is None
    assert "--atrous_rates=6,12 suit output stride 16, but --output_stride=8 is in use" in str(advice(output_stride=8))
    assert str(advice(output_stride=8)).endswith("--atrous_rates=12,24")
    assert advice(output_stride=8, atrous_rates="12,24") is None
    assert str(advice(None, output_stride=8, atrous_rates="6,12,18")).endswith("usual here: --atrous_rates=12,24,36")
    assert str(advice(None, output_stride=32, atrous_rates="6,12,18")).endswith("--atrous_rates=3,6,9")
    assert advice(None, output_stride=8, atrous_rates="1,2,3") is None
    # The cell has rates of its own, which follow the output stride.
    cell = "dense_prediction_cell_branch5_top1_cityscapes.json"
    assert advice(None, output_stride=8, atrous_rates="6,12,18", dense_prediction_cell_json=cell) is None
