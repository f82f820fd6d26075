"""Prefect's UI as a person uses it: ``deployments.serve``, a headless Chromium, and what the pages show."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.azurite import Azurite, needs_azurite
from tests.conftest import needs_program
from tests.integration.conftest import ROOT
from tests.integration.deployed_runs import CANCEL, tiny, wait_for
from tests.integration.remote_runs import Lab, running_lab
from tests.integration.stages_under_way import here, there
from tests.processes import left_of
from tests.serving import Served, serving

pytestmark = [
    needs_azurite,
    needs_program("chromium", "apt-get install chromium"),
    needs_program("playwright", "make tools"),
    pytest.mark.timeout(1500),
]
OURS = {"train-local", "train-valohai", "batch-inference", "evaluate-checkpoint", "sweep", "trial"}
ENDLESS = {"training_number_of_steps": 100_000, "save_interval_steps": 10}
# What each artifact tells, and whether it has a picture.
SHOWN = {
    "run-summary": ("mean IoU ", False),
    "train-progress": ("train: 60 of 60 steps", False),
    "train-loss": ("at step 60", True),
    "evaluate-iou": ("balloon", False),
    "evaluate-sheet": ("Photo | truth | prediction", True),
    "predict-overlays": ("6 of 8 photos with their masks", True),
}


@pytest.fixture(scope="module")
def lab(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(azurite, tmp_path_factory.mktemp("ui")) as lab:
        yield lab


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Served]:
    with serving(lab.folder, environment=lab.environment) as served:
        yield served


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Where screenshots go; kept where DEEPLAB_SCREENSHOTS says."""
    kept = os.environ.get("DEEPLAB_SCREENSHOTS")
    folder = Path(kept) if kept else tmp_path / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _browse(served: Served, pictures: Path, *words: str) -> Any:
    python = Path(shutil.which("playwright") or "playwright").with_name("python")
    command = [str(python), "-m", "tests.ui.browser", served.url, str(pictures), *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.timed
def test_the_demo_from_its_form_to_its_artifacts(served: Served, pictures: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    seen = _browse(served, pictures, "start", "train-local", str(store), "60")
    assert set(seen["deployments"]) >= OURS
    for text in ("Named values for what is left empty", "Train Crop Size", "Where stages run", "Empty: as trained."):
        assert text in seen["form"], text
    (run,) = served.of_flow("train")
    given = {"preset": "demo", "store": str(store), "backend": "local", "approve": True}
    assert run["parameters"]["parameters"] == {**given, "train": {"training_number_of_steps": 60}}

    assert _browse(served, pictures, "watch", run["id"]) == "Suspended"
    assert not list(store.glob("export/*"))
    question = _browse(served, pictures, "answer", run["id"], "good enough")
    assert "mean IoU " in question["text"] and "weakest classes" in question["text"]
    assert question["pictures"] and all(question["pictures"])

    assert _browse(served, pictures, "watch", run["id"]) == "Completed"
    assert list(store.glob("export/*/frozen_inference_graph.pb"))
    for key, page in _browse(served, pictures, "artifacts", run["id"], *SHOWN).items():
        text, pictured = SHOWN[key]
        assert text in page["text"], key
        assert bool(page["pictures"]) == pictured and all(page["pictures"]), key
    for name in ("deployments", "run-form", "running", "suspended", "question", "completed", "artifacts", *SHOWN):
        assert (pictures / f"{name}.png").stat().st_size > 20_000


@pytest.mark.chaos
def test_a_training_is_cancelled_from_its_page(served: Served, pictures: Path, tmp_path: Path) -> None:
    run = served.start(tiny(tmp_path, train=ENDLESS))
    training = wait_for(lambda: here("train", tmp_path), 300)
    _press_cancel(served, pictures, run)
    assert left_of(training.processes, 15) == []
    assert list(tmp_path.glob("train/*/model.ckpt-*.index")), "what it trained stays"
    assert served.ended(run)["type"] == "CANCELLED"
    assert _browse(served, pictures, "watch", run) == "Cancelled"


@pytest.mark.chaos
def test_a_training_on_valohai_is_cancelled_from_its_page(served: Served, pictures: Path, lab: Lab) -> None:
    parameters = {**tiny(f"az://{lab.container}/store", train=ENDLESS), "backend": "valohai"}
    run = served.start(parameters, "train/train-valohai")
    training = wait_for(lambda: there("train", lab), 400)
    _press_cancel(served, pictures, run)
    assert left_of(training.processes, 15) == []
    assert served.ended(run)["type"] == "CANCELLED"
    row = lab.execution("train")
    assert row is not None and row["status"] == "stopped"
    assert any(name.endswith(".tar") for name in lab.outputs(row)), "what it trained stays"


def _press_cancel(served: Served, pictures: Path, run: str) -> None:
    asked = _browse(served, pictures, "cancel", run)
    assert asked["state"] | CANCEL == asked["state"], "other tests ask the API for the same"
