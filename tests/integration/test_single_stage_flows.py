"""Batch inference and the evaluation of a checkpoint, on what a run of the training flow left."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.conftest import Flow
from tests.integration.remote_runs import TINY

pytestmark = pytest.mark.long


def _run(name: str, folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"flows.{name}", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.timeout(600)
def test_a_published_network_is_used_and_measured(flow: Flow, tmp_path: Path, flow_environment: dict[str, str]) -> None:
    first = flow(*TINY, "--store=store")
    assert first.returncode == 0, first.stderr
    (graph,) = tmp_path.glob("store/export/*/frozen_inference_graph.pb")
    (records,), (run,) = tmp_path.glob("store/convert/*/"), tmp_path.glob("store/train/*/")
    (archive,) = tmp_path.glob("store/archive/*/checkpoints.tar.gz")
    photos = tmp_path / "photos"
    photos.mkdir()
    for overlay in tmp_path.glob("store/predict/*/overlays/*"):
        shutil.copy(overlay, photos)

    masks = _run("batch_inference", tmp_path, flow_environment, f"--model={graph}", "--images=photos", "--store=store")
    assert masks.returncode == 0, masks.stderr
    folder = tmp_path / masks.stdout.split()[-1]
    assert len(list((folder / "ids").iterdir())) == len(list(photos.iterdir())) > 0

    again = _run("evaluate_checkpoint", tmp_path, flow_environment, f"--checkpoint={run}", f"--records={records}",
                 "--store=store", "--evaluate.eval_crop_size=257,257")  # fmt: skip
    assert again.returncode == 0, again.stderr
    assert len(list((tmp_path / "store" / "evaluate").glob("*/"))) == 1, "the flow had measured the very same"

    packed = ["--dataset=sample", f"--records={records / 'tfrecords.tar.gz'}", "--evaluate.eval_crop_size=257,257"]
    other = _run("evaluate_checkpoint", tmp_path, flow_environment, f"--checkpoint={archive}", *packed, "--store=other")
    assert other.returncode == 0, other.stderr
    mious = [re.search(r"mean IoU +([\d.]+) %", text.stdout) for text in (first, again, other)]
    assert len({found[1] for found in mious if found}) == 1 and all(mious)
    (scores,) = tmp_path.glob("other/evaluate/*/results.json")
    assert json.loads(scores.read_text())["images"] == 2


def test_photos_that_are_not_there_yet_can_be_skipped(tmp_path: Path, flow_environment: dict[str, str]) -> None:
    words = ["--model=none.pb", "--images=later", "--skip_missing=true"]
    done = _run("batch_inference", tmp_path, flow_environment, *words)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "skipped: later is not there\n"
    assert "Skipped(" in done.stderr


def test_bad_values_are_refused_before_any_work(tmp_path: Path, flow_environment: dict[str, str]) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "photo.jpg").touch()
    for name, arguments, message in (
        ("batch_inference", ["--model=none.pb", "--images=*.jpg"], "no photo there; name a photo"),
        ("batch_inference", ["--model=none.pb", "--images=photos"], "none.pb: no such file or folder"),
        ("batch_inference", ["--model=none.pb"], "images"),
        ("evaluate_checkpoint", ["--checkpoint=none", "--records=."], "none: no such file or folder"),
        ("evaluate_checkpoint", ["--checkpoint=.", "--records=.", "--evaluate.eval_crop_sze=9"], "did you mean"),
    ):
        done = _run(name, tmp_path, flow_environment, *arguments)
        assert done.returncode in (1, 2) and message in done.stderr, done.stderr
        assert not list(tmp_path.glob("deeplab-store/*/*"))
