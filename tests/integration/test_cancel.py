"""A run is stopped in each of its stages: its process or execution is gone, its state tells so, its work is kept."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.azurite import Azurite, needs_azurite
from tests.integration import slow_stages
from tests.integration.deployed_runs import FINAL, wait_for
from tests.integration.remote_runs import STEPS, Lab, running_lab
from tests.integration.slow_stages import STAGES, Material
from tests.integration.stages_under_way import Begun, here, there
from tests.processes import left_of
from tests.serving import Served, serving

pytestmark = [pytest.mark.chaos, needs_azurite, pytest.mark.timeout(1200)]
# Seconds after which nothing of a stage may be left.
PATIENCE = 15
# Times that a stage may end before it is stopped.
ATTEMPTS = 5


@pytest.fixture(scope="module")
def lab(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with running_lab(azurite, tmp_path_factory.mktemp("cancel")) as lab:
        yield lab


@pytest.fixture(scope="module")
def served(lab: Lab) -> Iterator[Served]:
    with serving(lab.folder, environment=lab.environment) as served:
        yield served


@pytest.fixture(scope="module")
def material(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Material]:
    with slow_stages.material(tmp_path_factory.mktemp("material"), azurite) as material:
        yield material


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All runs here share it: what comes before a stage is made once."""
    return tmp_path_factory.mktemp("store")


def _cancelled(served: Served, start: Callable[[], str], look: Callable[[], Begun | None]) -> str:
    """Start runs until one is stopped in the stage that is meant; its id."""
    for _ in range(ATTEMPTS):
        run = start()
        begun = wait_for(lambda run=run: look() or served.run(run)["state"]["type"] in FINAL, 600)
        if not isinstance(begun, Begun) or not served.cancel(run):
            continue
        left = left_of(begun.processes, PATIENCE)
        state = served.ended(run, 2 * PATIENCE)
        if not begun.finished():
            assert left == []
            assert state["type"] == "CANCELLED", state
            return run
    pytest.fail(f"the stage has ended before it was stopped, {ATTEMPTS} times")


LOCAL = STAGES


@pytest.mark.parametrize("stage", LOCAL)
def test_cancel_ends_a_stage(served: Served, material: Material, store: Path, stage: str) -> None:
    def start() -> str:
        nonlocal parameters
        parameters = material.parameters(stage, str(store))
        return served.start(parameters)

    parameters: Mapping[str, Any] = {}
    run = _cancelled(served, start, lambda: here(stage, store))
    assert any("Cancelling" in name for name in served.states(run))
    if stage == "train":
        again = served.start(parameters)
        wait_for(lambda: [line for line in served.log(again) if line.startswith("resuming from model.ckpt-")])
        served.cancel(again)
        assert served.ended(again)["type"] == "CANCELLED"


@pytest.mark.parametrize("stage", STEPS)
def test_cancel_ends_an_execution(served: Served, material: Material, lab: Lab, stage: str) -> None:
    def start() -> str:
        parameters = material.parameters(stage, f"az://{lab.container}/store")
        return served.start({**parameters, "backend": "valohai"}, "train/train-valohai")

    run = _cancelled(served, start, lambda: there(stage, lab))
    row = lab.execution(stage)
    assert row is not None and row["status"] == "stopped"
    wait_for(lambda: [line for line in served.log(run) if line.startswith("stopping execution")], 30)
    if stage == "train":
        assert any(name.endswith(".tar") for name in lab.outputs(row)), "what it trained stays"


def test_cancel_reaches_a_run_at_a_terminal(served: Served, material: Material, store: Path, tmp_path: Path) -> None:
    flow = _at_a_terminal(served, material.parameters("train", str(store)), tmp_path)
    begun = wait_for(lambda: here("train", store), 600)
    run = served.of_flow("train")[0]["id"]
    assert served.cancel(run)
    assert left_of(begun.processes, PATIENCE) == []
    assert flow.wait(PATIENCE) == 143
    assert "cancelled; the same command goes on from here" in (tmp_path / "flow.txt").read_text()
    assert served.run(run)["state"]["type"] == "CANCELLED"
    assert any(store.glob("train/*/model.ckpt-*.index")), "what it trained stays"


@pytest.mark.parametrize("stage", LOCAL)
def test_ctrl_c_ends_a_stage(served: Served, material: Material, store: Path, tmp_path: Path, stage: str) -> None:
    for _ in range(ATTEMPTS):
        flow = _at_a_terminal(served, material.parameters(stage, str(store)), tmp_path)
        begun = wait_for(lambda flow=flow: here(stage, store) or flow.poll() is not None, 600)
        if isinstance(begun, Begun):
            # As a terminal does: it goes to every process of the group.
            os.killpg(flow.pid, signal.SIGINT)
            left = left_of(begun.processes, PATIENCE)
            status = flow.wait(2 * PATIENCE)
            if not begun.finished():
                break
    else:
        pytest.fail(f"the stage has ended before it was stopped, {ATTEMPTS} times")
    assert left == []
    assert status == 130
    assert "stopped; the same command goes on from here" in (tmp_path / "flow.txt").read_text()
    state = served.of_flow("train")[0]["state"]
    assert state["type"] in ("CANCELLED", "CRASHED") and state["message"], state
    if stage == "train":
        assert any(store.glob("train/*/model.ckpt-*.index")), "what it trained stays"


def _at_a_terminal(served: Served, parameters: Mapping[str, Any], folder: Path) -> subprocess.Popen[bytes]:
    config = folder / "run.yaml"
    config.write_text(yaml.safe_dump(parameters))
    words = [sys.executable, "-m", "flows.train", f"--config={config}"]
    environment = {**os.environ, "PREFECT_API_URL": f"{served.url}/api", "PREFECT_HOME": str(folder / "prefect")}
    with (folder / "flow.txt").open("ab") as output:
        return subprocess.Popen(words, env=environment, stdout=output, stderr=output, start_new_session=True)
