"""The file at the top level is what the configuration says, and what it runs is what a stage accepts."""

import io
import shlex
import subprocess
import tarfile
from pathlib import Path

import pytest
import valohai_yaml
from valohai_yaml.lint import lint

from deeplab.config import CONFIGS, resolve
from deeplab.config.command_line import parse
from deployments.valohai_yaml import STEPS, text

FILE = Path(__file__).parents[3] / "valohai.yaml"


def test_the_file_is_up_to_date() -> None:
    assert FILE.read_text(encoding="utf-8") == text(), "run python -m deployments.valohai_yaml > valohai.yaml"


def test_it_lints_clean() -> None:
    result = lint(FILE.read_text(encoding="utf-8"))
    assert not list(result.messages)


@pytest.mark.parametrize(
    ("kind", "word", "name"),
    [
        ("steps", "load", "Load data and convert"),
        ("steps", "train", "Train DeepLab model"),
        ("steps", "export", "Export trained model to TF frozen graph"),
        ("pipelines", "convert", "Convert, train and export"),
    ],
)
def test_the_words_of_the_original_project_are_unambiguous(kind: str, word: str, name: str) -> None:
    names = getattr(valohai_yaml.parse(FILE.read_text(encoding="utf-8")), kind)
    assert [candidate for candidate in names if candidate.lower().startswith(word)] == [name]


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.stage)
def test_what_a_step_runs_is_what_its_stage_accepts(step) -> None:
    parsed = valohai_yaml.parse(FILE.read_text(encoding="utf-8")).steps[step.name]
    values = {name: parameter.default for name, parameter in parsed.parameters.items() if parameter.default is not None}
    (line,) = [line for line in parsed.build_command(values) if f"deeplab {step.stage} " in line]
    words = shlex.split(line.replace("$(cat initial)", ""))
    given = parse(CONFIGS[step.stage], words[words.index(step.stage) + 1 :])
    config = resolve(CONFIGS[step.stage], given)
    for name, value in step.defaults.items():
        found = getattr(config, name)
        shown = ",".join(str(item) for item in found) if isinstance(found, tuple) else str(found)
        assert shown == str(value)


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.stage)
def test_flags_reach_the_stage_on_and_off(step) -> None:
    parsed = valohai_yaml.parse(FILE.read_text(encoding="utf-8")).steps[step.name]
    flags = [name for name, parameter in parsed.parameters.items() if parameter.type == "flag"]
    for value in (True, False):
        command = " ".join(parsed.build_command(dict.fromkeys(flags, value)))
        assert all(f"--{name}={str(value).lower()}" in command for name in flags)


def test_later_steps_leave_the_network_to_model_json() -> None:
    steps = valohai_yaml.parse(FILE.read_text(encoding="utf-8")).steps
    for step in STEPS:
        if step.stage in ("evaluate", "export", "predict"):
            defaults = {name for name, item in steps[step.name].parameters.items() if item.default is not None}
            assert not defaults & set(CONFIGS["train"].weight_fields())


def _archive(path: Path, **files: str) -> None:
    with tarfile.open(path, "w:gz" if path.name.endswith(".gz") else "w") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ((), None),
        (("checkpoints.tar.gz",), "checkpoints.tar.gz"),
        (("checkpoint-10.tar", "checkpoint-9.tar", "checkpoint-100.tar"), "checkpoint-100.tar"),
        (("checkpoint-10.tar", "checkpoints.tar.gz"), "checkpoint-10.tar"),
    ],
)
def test_the_newest_of_several_checkpoints_tells_the_state(tmp_path: Path, names, state: str | None) -> None:
    inputs = tmp_path / "inputs" / "checkpoints"
    inputs.mkdir(parents=True)
    (tmp_path / "run").mkdir()
    for name in names:
        _archive(inputs / name, checkpoint=name)
    (line,) = (line for step in STEPS if step.stage == "train" for line in step.command if "tar -xf" in line)
    command = ["sh", "-e", "-c", line.replace("/valohai", str(tmp_path))]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert [path.read_text() for path in (tmp_path / "run").iterdir()] == ([state] if state else [])
    (inputs / "checkpoint-1.tar").write_text("no archive")
    assert subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL).returncode != 0
