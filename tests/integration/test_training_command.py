"""Training by hand, in one folder: any crop, stopping, going on."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Result

Deeplab = Callable[..., Result]
SMALL = [
    "--dataset=sample",
    "--dataset_dir=records",
    "--train_logdir=run",
    "--depth_multiplier=0.1",
    "--aspp_convs_filters=8",
    "--train_batch_size=2",
    "--log_steps=1",
]


@pytest.fixture
def records(deeplab: Deeplab) -> None:
    assert deeplab("sample", "--output_path=sample.zip", "--size=8").returncode == 0
    assert deeplab("convert", "--dataset=sample", "--source=sample.zip", "--output_dir=records").returncode == 0


def _steps(folder: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("records")
def test_any_crop_trains_with_a_warning_and_more_steps_go_on(deeplab: Deeplab, tmp_path: Path) -> None:
    command = ["train", *SMALL, "--train_crop_size=60,70"]
    first = deeplab(*command, "--training_number_of_steps=2")
    assert first.returncode == 0, first.stderr
    assert "not a multiple of the output stride plus one, such as 49,65" in first.stderr
    assert [json.loads(line)["step"] for line in first.stdout.splitlines()] == [1, 2]
    again = deeplab(*command, "--training_number_of_steps=2")
    assert again.returncode == 0 and "already trained" in again.stderr
    more = deeplab(*command, "--training_number_of_steps=3")
    assert more.returncode == 0 and "resuming from model.ckpt-2" in more.stderr
    assert _steps(tmp_path / "run") == [1, 2, 3]
    other = deeplab(*command, "--training_number_of_steps=3", "--base_learning_rate=0.1")
    assert other.returncode == 1
    assert "--base_learning_rate is 0.0001 there, 0.1 given" in other.stderr
    evaluated = deeplab("evaluate", "--checkpoint_dir=run", "--dataset_dir=records", "--eval_logdir=eval",
                        "--eval_crop_size=201,201")  # fmt: skip
    assert evaluated.returncode == 0, evaluated.stderr
    assert json.loads((tmp_path / "eval" / "results.json").read_text())["images"] == 2


@pytest.mark.usefixtures("records")
def test_frozen_batch_norm_from_scratch_is_warned_of(deeplab: Deeplab) -> None:
    command = ["train", *SMALL, "--train_crop_size=65,65", "--fine_tune_batch_norm=false"]
    first = deeplab(*command, "--training_number_of_steps=1")
    assert first.returncode == 0 and "batch norm keeps its initial statistics" in first.stderr
    more = deeplab(*command, "--training_number_of_steps=2")
    assert "resuming from" in more.stderr and "initial statistics" not in more.stderr


@pytest.mark.usefixtures("records")
def test_sigterm_keeps_a_checkpoint_and_the_same_command_goes_on(deeplab: Deeplab, tmp_path: Path) -> None:
    command = [*SMALL, "--train_crop_size=33,33", "--training_number_of_steps=400"]
    process = subprocess.Popen(
        [sys.executable, "-m", "deeplab", "train", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["step"] == 1
        os.kill(process.pid, signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(timeout=30) == 143
        assert time.monotonic() - started < 10
    assert not (tmp_path / "run" / "manifest.json").exists()
    (index,) = (tmp_path / "run").glob("model.ckpt-*.index")
    again = deeplab("train", *command)
    assert again.returncode == 0, again.stderr
    assert f"resuming from {index.stem}" in again.stderr
    assert _steps(tmp_path / "run") == list(range(1, 401))
    assert (tmp_path / "run" / "manifest.json").exists()


@pytest.mark.usefixtures("records")
def test_a_damaged_checkpoint_repeats_the_training_and_another_models_is_refused(
    deeplab: Deeplab, tmp_path: Path
) -> None:
    command = ["train", *SMALL, "--train_crop_size=33,33", "--training_number_of_steps=2"]
    assert deeplab(*command).returncode == 0
    digest = json.loads((tmp_path / "run" / "manifest.json").read_text())["digest"]
    (data,) = (tmp_path / "run").glob("model.ckpt-2.data-*")
    content = bytearray(data.read_bytes())
    content[len(content) // 2] ^= 1
    data.write_bytes(content)
    again = deeplab(*command)
    assert again.returncode == 0, again.stderr
    assert "passed over" in again.stderr
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())["digest"] == digest

    # A folder of another program: its checkpoint, nothing of ours.
    for entry in (tmp_path / "run").iterdir():
        if "ckpt" not in entry.name and entry.name != "checkpoint":
            entry.unlink()
    before = {entry.name: entry.read_bytes() for entry in (tmp_path / "run").glob("model.ckpt*")}
    other = deeplab(*command, "--decoder_output_stride=4")
    assert other.returncode == 1
    assert "was trained with other model flags" in other.stderr
    assert {entry.name: entry.read_bytes() for entry in (tmp_path / "run").glob("model.ckpt*")} == before
