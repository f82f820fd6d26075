"""Prefect's UI as a person uses it: ``deployments.serve``, a headless Chromium, and what the pages show."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import needs_program
from tests.integration.conftest import ROOT
from tests.processes import descendants, left_of

pytestmark = [
    pytest.mark.chaos,
    needs_program("chromium", "apt-get install chromium"),
    needs_program("playwright", "make tools"),
]
OURS = {"train-local", "train-valohai", "batch-inference", "evaluate-checkpoint", "sweep", "trial"}


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """``python -m deployments.serve`` in a folder of its own; gives its URL. Nothing is left of it at the end."""
    folder = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "deployments.serve", f"--home={folder / 'home'}", "--port=0"]
    output = folder / "output.txt"
    with output.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while not (found := re.search(r"(http://127\.0\.0\.1:\d+) +deployments", output.read_text())):
            assert process.poll() is None and time.monotonic() < deadline, output.read_text()
            time.sleep(0.5)
        yield found[1]
    finally:
        family = descendants(process.pid)
        process.send_signal(signal.SIGINT)
        process.wait(90)
        assert left_of(family, 20) == []


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go; kept where DEEPLAB_SCREENSHOTS says."""
    kept = os.environ.get("DEEPLAB_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _browse(url: str, pictures: Path, *words: str) -> dict[str, Any]:
    python = Path(shutil.which("playwright") or "playwright").with_name("python")
    command = [str(python), "-m", "tests.ui.browser", url, str(pictures), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _runs(url: str, deployment: str) -> list[dict[str, Any]]:
    name = {"deployments": {"name": {"any_": [deployment]}}, "sort": "EXPECTED_START_TIME_DESC"}
    runs: list[dict[str, Any]] = httpx.post(f"{url}/api/flow_runs/filter", json=name, timeout=30).json()
    return runs


@pytest.mark.timeout(1500)
def test_the_demo_is_started_from_its_form_and_watched(served: str, pictures: Path, tmp_path: Path) -> None:
    seen = _browse(served, pictures, "run-form", "train-local", str(tmp_path / "store"))
    assert set(seen["deployments"]) >= OURS
    for text in ("Named values for what is left empty", "Train Crop Size", "Where stages run", "Empty: as trained."):
        assert text in seen["form"], text
    (run,) = _runs(served, "train-local")
    assert run["parameters"]["parameters"]["store"] == str(tmp_path / "store")
    watched = _browse(served, pictures, "watch", run["id"])
    assert watched["state"] == "Completed"
    for artifact in ("data-set", "train-loss", "evaluate-iou", "evaluate-sheet", "run-summary"):
        assert artifact in watched["artifacts"].lower(), artifact
    assert list((tmp_path / "store").glob("export/*/frozen_inference_graph.pb"))
    for name in ("deployments", "run-form", "running", "run", "artifacts"):
        assert (pictures / f"{name}.png").stat().st_size > 20_000


@pytest.mark.timeout(600)
def test_a_training_is_cancelled_from_its_page(served: str, pictures: Path, tmp_path: Path) -> None:
    train = {"training_number_of_steps": 100_000, "save_interval_steps": 10, "depth_multiplier": 0.1,
             "train_crop_size": [65, 65], "train_batch_size": 2}  # fmt: skip
    parameters = {"preset": "demo", "store": str(tmp_path / "store"), "sample": {"size": 16}, "train": train}
    found = httpx.get(f"{served}/api/deployments/name/train/train-local", timeout=30).json()
    made = httpx.post(
        f"{served}/api/deployments/{found['id']}/create_flow_run",
        json={"parameters": {"parameters": parameters}, "state": {"type": "SCHEDULED"}},
        timeout=30,
    ).json()
    deadline = time.monotonic() + 300
    while not list((tmp_path / "store").glob("train/*/model.ckpt-*.index")):
        assert time.monotonic() < deadline, httpx.get(f"{served}/api/flow_runs/{made['id']}", timeout=30).text
        time.sleep(1)
    training = _processes("deeplab train", str(tmp_path))
    assert training
    seen = _browse(served, pictures, "cancel", made["id"])
    assert seen["state"] == "Cancelled"
    assert left_of(training, 15) == []
    assert list((tmp_path / "store").glob("train/*/model.ckpt-*.index")), "what it trained stays"


def _processes(stage: str, place: str) -> set[int]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if f"-m {stage}" in words and place in words:
            found.add(int(path.parent.name))
    return found
