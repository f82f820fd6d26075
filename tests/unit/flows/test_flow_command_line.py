import pytest

from deeplab.errors import ConfigError
from flows.command_line import merge, parse
from flows.parameters import TrainFlowParameters


def read(*arguments):
    return parse(TrainFlowParameters, "python -m flows.train", arguments)


def test_every_kind_of_value():
    given = read(
        "--preset=demo",
        "--store",
        "somewhere",
        "--train.train_crop_size=129,65",
        "--train.atrous_rates=6,12,18",
        "--train.fine_tune_batch_norm=false",
        "--train.base_learning_rate=1e-3",
        "--train.output_stride=8",
        "--evaluate.eval_scales=0.5",
        "--evaluate.eval_scales=1.0",
    )
    assert given.store == "somewhere"
    assert given.train.given() == {
        "train_crop_size": (129, 65),
        "atrous_rates": (6, 12, 18),
        "fine_tune_batch_norm": False,
        "base_learning_rate": 0.001,
        "output_stride": 8,
    }
    assert given.evaluate.given() == {"eval_scales": (0.5, 1.0)}


def test_flag_wins_over_file_and_file_over_preset(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: demo\ntrain:\n  train_batch_size: 4\n  train_crop_size: 65,65\nevaluate:\n")
    given = read(f"--config={file}", "--train.train_batch_size=2")
    assert given.preset == "demo"
    values = given.values("train")
    assert (values["train_batch_size"], values["train_crop_size"]) == (2, (65, 65))
    assert values["training_number_of_steps"] == 400


def test_file_alone_does_what_flags_do(tmp_path):
    file = tmp_path / "run.yaml"
    file.write_text("preset: demo\nstore: here\ntrain: {train_crop_size: [65, 65], atrous_rates: [6, 12]}\n")
    flags = ["--preset=demo", "--store=here", "--train.train_crop_size=65,65", "--train.atrous_rates=6,12"]
    assert read(f"--config={file}") == read(*flags)


@pytest.mark.parametrize(
    ("argument", "near"),
    [
        ("--train.training_number_of_step=3", "--train.training_number_of_steps"),
        ("--trian.train_batch_size=3", "--train.train_batch_size"),
        ("--training_number_of_steps=3", "--train.training_number_of_steps"),
        ("--train_batchsize=3", "--train.train_batch_size"),
        ("--pre=demo", "--preset"),
        ("--train.train-batch-size=3", "--train.train_batch_size"),
    ],
)
def test_misspelt_flag_names_the_nearest(argument, near):
    with pytest.raises(ConfigError) as caught:
        read("--preset=demo", argument)
    assert str(caught.value) == f"unknown flag {argument.partition('=')[0]}; did you mean {near}?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["demo"], "unexpected 'demo': every value belongs to a flag"),
        (["--preset"], "argument --preset: expected one argument"),
        (["--qqqqqq=1"], "unknown flag --qqqqqq; --help lists the flags"),
        (["--config=missing.yaml"], "--config=missing.yaml: .*No such file"),
        (["--preset=demo", "--train.train_crop_size=129"], "too few values, separate them by commas"),
        (["--preset=demo", "--train.train_batch_size=many"], "--train.train_batch_size=many: input should be a valid"),
    ],
)
def test_every_refusal_is_one_line(arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        read(*arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train:\n  train_batchsize: 3\n", "unknown train.train_batchsize; did you mean train.train_batch_size?"),
        ("- a\n", "expected lines of the form name: value"),
        ("a: [\n", "while parsing"),
        ("trian:\n  seed: 3\n", "unknown trian.seed; did you mean"),
    ],
)
def test_bad_file_is_named(tmp_path, text, message):
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read(f"--config={file}")
    assert message in str(caught.value)
    assert str(file) in str(caught.value)


def test_help_lists_flags_without_noise(capsys):
    with pytest.raises(SystemExit) as caught:
        read("--help")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith("usage: python -m flows.train [--preset=NAME] [--config=FILE] [--SECTION.FLAG=VALUE ...]\n")
    for flag in ("--preset", "--config", "--fetch.source", "--train.train_crop_size", "--predict.images"):
        assert flag in text
    assert "None" not in text
    assert "factory" not in text


def test_environment_is_not_read(monkeypatch):
    monkeypatch.setenv("STORE", "elsewhere")
    monkeypatch.setenv("train", '{"train_batch_size": 3}')
    assert read("--preset=demo") == read("--preset=demo", "--store=deeplab-store")


def test_merge_is_deep_and_leaves_its_arguments_alone():
    below, above = {"a": {"b": 1, "c": 2}, "d": 1}, {"a": {"b": 3}, "e": 4}
    assert merge(below, above) == {"a": {"b": 3, "c": 2}, "d": 1, "e": 4}
    assert below == {"a": {"b": 1, "c": 2}, "d": 1}
