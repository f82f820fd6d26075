"""Whole flows, with real stages, the embedded API, and kill -9."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.conftest import Flow

pytestmark = pytest.mark.long

STAGES = ("sample", "fetch", "convert", "train", "archive", "evaluate", "export", "predict")
TINY = [
    "--preset=demo",
    "--sample.size=16",
    "--train.depth_multiplier=0.1",
    "--train.aspp_convs_filters=16",
    "--train.decoder_filters=16",
    "--train.train_crop_size=65,65",
    "--train.train_batch_size=2",
    "--train.log_steps=1",
    "--train.batch_norm_reestimation_batches=2",
]


def _ran(output: str) -> set[str]:
    return {stage for stage in STAGES if re.search(rf"\b{stage} runs because", output)}


def _reused(output: str) -> set[str]:
    return set(re.findall(r"reused \S*store/(\w+)/", output))


def _losses(store: Path) -> list[tuple[int, float]]:
    (metrics,) = store.glob("train/*/metrics.jsonl")
    points = [json.loads(line) for line in metrics.read_text().splitlines()]
    return [(point["step"], point["loss"]) for point in points]


@pytest.mark.timed
@pytest.mark.timeout(900)
def test_the_demo_and_its_second_run(flow: Flow, tmp_path: Path) -> None:
    first = flow("--preset=demo", "--store=store")
    assert first.returncode == 0, first.stderr
    assert _ran(first.stdout + first.stderr) == set(STAGES)
    (results,) = tmp_path.glob("store/evaluate/*/results.json")
    assert json.loads(results.read_text())["miou"] >= 0.60
    for pattern in (
        "report/*/report.html",
        "predict/*/overlays/*.jpg",
        "export/*/frozen_inference_graph.pb",
        "archive/*/checkpoints.tar.gz",
    ):
        assert list((tmp_path / "store").glob(pattern)), pattern
    started = time.monotonic()
    second = flow("--preset=demo", "--store=store")
    assert second.returncode == 0, second.stderr
    assert time.monotonic() - started < 25
    assert _ran(second.stdout + second.stderr) == set()
    assert _reused(second.stdout + second.stderr) == set(STAGES)


@pytest.mark.timeout(900)
def test_real_photos_from_published_weights(flow: Flow, tmp_path: Path, shared: Path) -> None:
    checkpoint = shared / "checkpoints" / "deeplabv3_mnv2_ade20k_from_tflite"
    train = {
        "tf_initial_checkpoint": str(checkpoint),
        "training_number_of_steps": 20,
        "decoder_output_stride": 4,
        "train_crop_size": "257,257",
        "min_resize_value": 257,
        "max_resize_value": 257,
        "resize_factor": 16,
        "fine_tune_batch_norm": False,
        "train_batch_size": 4,
        "base_learning_rate": 1e-5,
    }
    source = shared / "data" / "ADEChallengeData2016_mini.zip"
    lines = [f"fetch:\n  source: {source}", "train:", *(f"  {name}: {value}" for name, value in train.items())]
    (tmp_path / "run.yaml").write_text("\n".join(lines) + "\nstore: store\n")
    flags = [f"--train.{name}={value}" for name, value in train.items()]
    first = flow(f"--fetch.source={source}", "--store=store", *flags)
    assert first.returncode == 0, first.stderr
    assert _ran(first.stdout + first.stderr) == set(STAGES) - {"sample"}
    assert _losses(tmp_path / "store")[-1][0] == 20
    (results,) = tmp_path.glob("store/evaluate/*/results.json")
    assert json.loads(results.read_text())["pixel_accuracy"] > 0.5
    # The file alone is the same run: nothing is left to do.
    second = flow("--config=run.yaml")
    assert second.returncode == 0, second.stderr
    assert _ran(second.stdout + second.stderr) == set()


@pytest.mark.timeout(900)
def test_kill_9_in_the_middle_of_training(flow: Flow, tmp_path: Path, flow_environment: dict[str, str]) -> None:
    arguments = [*TINY, "--train.training_number_of_steps=60", "--train.save_interval_steps=10"]
    unbroken = flow(*arguments, "--store=unbroken")
    assert unbroken.returncode == 0, unbroken.stderr

    process = subprocess.Popen(
        [sys.executable, "-m", "flows.train", *arguments, "--store=store"],
        cwd=tmp_path,
        env=flow_environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("store/train/*/model.ckpt-*.index")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()

    again = flow(*arguments, "--store=store")
    output = again.stdout + again.stderr
    assert again.returncode == 0, output
    assert {"sample", "fetch", "convert"} <= _reused(output)
    assert "train runs because it is unfinished" in output
    resumed = re.search(r"resuming from model\.ckpt-(\d+)", output)
    assert resumed is not None and 0 < int(resumed[1]) < 60
    ours, theirs = _losses(tmp_path / "store"), _losses(tmp_path / "unbroken")
    assert [step for step, _ in ours] == list(range(1, 61))
    assert ours[-1][1] == pytest.approx(theirs[-1][1], rel=1e-5)


@pytest.mark.timeout(900)
def test_more_steps_go_on_from_the_last_checkpoint(flow: Flow, tmp_path: Path) -> None:
    assert flow(*TINY, "--train.training_number_of_steps=6", "--store=store").returncode == 0
    longer = flow(*TINY, "--train.training_number_of_steps=9", "--store=store")
    output = longer.stdout + longer.stderr
    assert longer.returncode == 0, output
    assert {"fetch", "convert"} <= _reused(output)
    assert "resuming from model.ckpt-6 at step 6" in output
