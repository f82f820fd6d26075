import json
from pathlib import Path
from typing import Any

import pytest

from deeplab.config import CONFIGS, EvaluationConfig, ExportConfig, TrainingConfig, resolve
from deeplab.config.command_line import help_text, parse
from deeplab.errors import ConfigError

TRAIN = ["--dataset_dir=data", "--train_logdir=log"]
FLAGS = Path(__file__).resolve().parents[4] / "shared" / "goldens" / "misc" / "flags.json"
# The original's script -> our stage, for the scripts that have one.
SCRIPTS = {
    "train": "train",
    "eval": "evaluate",
    "export_model": "export",
    "build_data": "convert",
    "build_ade20k_data": "convert",
}
# docs/differences.md: the deliberate differences from the original's defaults.
DIFFERENT_DEFAULTS = {"max_number_of_evaluations"}


def _train(*arguments: str) -> TrainingConfig:
    return resolve(TrainingConfig, parse(TrainingConfig, [*TRAIN, *arguments]))


def test_the_original_syntax() -> None:
    config = _train(
        "--logtostderr",
        "--train_crop_size=321,513",
        "--atrous_rates=6",
        "--atrous_rates=12",
        "--decoder_output_stride=4",
        "--fine_tune_batch_norm=false",
        "--noinitialize_last_layer",
        "--weight_decay",
        "0.0001",
    )
    assert config.train_crop_size == (321, 513)
    assert config.atrous_rates == (6, 12)
    assert config.decoder_output_stride == (4,)
    assert config.fine_tune_batch_norm is False
    assert config.initialize_last_layer is False
    assert config.weight_decay == 0.0001


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--decoder_otput_stride=4"],
            "unknown flag --decoder_otput_stride; did you mean --decoder_output_stride?",
        ),
        (["--train_batch_size=0"], "--train_batch_size=0: input should be greater than or equal to 1"),
        (["--train_batch_size=four"], "--train_batch_size=four"),
        (["--train_crop_size=513"], "too few values"),
        (["--optimizer=sgd"], "'momentum' or 'adam'"),
        (["513"], "unexpected '513'"),
        (["--min_scale_factor=3"], "min_scale_factor=3.0 exceeds max_scale_factor=2.0"),
        (["--num_clones=4"], "num_clones=4 is not supported"),
        (["--quantize_delay_step=0"], "fake quantisation is not supported"),
        (["--train_crop_size"], "train_crop_size"),
    ],
)
def test_a_bad_flag_is_told_in_one_line(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as error:
        _train(*arguments)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_flag_is_named() -> None:
    with pytest.raises(ConfigError, match="--dataset_dir is required"):
        resolve(TrainingConfig, parse(TrainingConfig, ["--train_logdir=log"]))


def test_a_configuration_file_yields_to_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train_batch_size: 3\natrous_rates: [6, 12, 18]\nbase_learning_rate: 1e-3\n")
    config = _train(f"--config={file}", "--train_batch_size=5")
    assert (config.train_batch_size, config.atrous_rates) == (5, (6, 12, 18))
    assert config.base_learning_rate == 0.001


def test_an_unknown_name_in_a_configuration_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("train_batchsize: 3\n")
    with pytest.raises(ConfigError, match="train_batchsize"):
        _train(f"--config={file}")


def test_an_empty_value_means_not_given() -> None:
    assert _train("--atrous_rates=", "--min_resize_value=").atrous_rates is None


@pytest.mark.parametrize("stage", CONFIGS)
def test_help_shows_every_flag(stage: str) -> None:
    text = help_text(stage, CONFIGS[stage])
    assert all(f"--{name}" in text for name in CONFIGS[stage].model_fields)
    assert max(len(line) for line in text.splitlines()) <= 110


def _originals() -> list[Any]:
    if not FLAGS.exists():
        return [pytest.param(None, marks=pytest.mark.skip("needs the folder 'shared' beside the repository"))]
    flags = json.loads(FLAGS.read_text())
    common = [
        {**flag, "script": script}
        for script in ("train", "eval", "export_model")
        for flag in flags
        if flag["script"] == "common"
    ]
    return [flag for flag in [*flags, *common] if flag["script"] in SCRIPTS]


@pytest.mark.parametrize("flag", _originals(), ids=lambda flag: flag and f"{flag['script']}-{flag['name']}")
def test_every_flag_of_the_original_has_its_name_and_default(flag: dict[str, Any]) -> None:
    config_class = CONFIGS[SCRIPTS[flag["script"]]]
    name = flag["name"]
    if flag["script"] != "train" and name in ("label_weights",):
        assert name not in config_class.model_fields or config_class.model_fields[name].default is None
        return
    info = config_class.model_fields[name]
    if flag["required"] or info.is_required():
        assert info.is_required()
    elif name not in DIFFERENT_DEFAULTS:
        assert _text(info.default) == _text(flag["default"])


def _text(value: Any) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [value]
    return [
        str(float(item)) if isinstance(item, (int, float)) or _numeric(item) else str(item or None) for item in values
    ]


def _numeric(item: Any) -> bool:
    try:
        float(item)
    except (TypeError, ValueError):
        return False
    return True


def test_export_and_evaluation_take_the_model_flags() -> None:
    for config_class, paths in (
        (ExportConfig, ["--checkpoint_path=a", "--export_path=b"]),
        (EvaluationConfig, ["--checkpoint_dir=a", "--eval_logdir=b", "--dataset_dir=c"]),
    ):
        config = resolve(config_class, parse(config_class, [*paths, "--depth_multiplier=0.5"]))
        assert config.depth_multiplier == 0.5
