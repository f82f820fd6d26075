"""A person's consent before the export: the run waits without a process, and goes on or ends as the answer says."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.deployed_runs import tiny, wait_for
from tests.processes import command_of, descendants
from tests.serving import Served, serving

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
BEFORE = ("sample", "fetch", "convert", "train", "archive", "evaluate")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("approval")) as served:
        yield served


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what is to be approved is made once."""
    return tmp_path_factory.mktemp("store")


def _parameters(store: Path, seed: int) -> dict[str, Any]:
    """Of a run that asks before an export that nobody has made."""
    return {**tiny(store, train={"training_number_of_steps": 3}, export={"seed": seed}), "approve": True}


def _asks(served: Served, store: Path, seed: int) -> str:
    """Start a run and wait until it asks; its id."""
    run = served.start(_parameters(store, seed))
    wait_for(lambda: served.run(run)["state"]["name"] == "Suspended", 300)
    return run


def _question(served: Served, run: str) -> str:
    """What the form of the UI shows above its fields."""
    keys = served.run(run)["state"]["state_details"]["run_input_keyset"]
    return served.client.get(f"/flow_runs/{run}/input/{keys['description']}").raise_for_status().text


def _answer(served: Served, run: str, answer: Mapping[str, Any]) -> None:
    sent = served.client.post(f"/flow_runs/{run}/resume", json={"run_input": answer}).raise_for_status().json()
    assert sent["status"] == "ACCEPT", sent


def _asks_again(served: Served, run: str, force: bool) -> None:
    served.again(run, force=force)
    wait_for(lambda: served.run(run)["state"]["name"] == "Suspended", 120)


def _processes_of_runs(served: Served) -> list[str]:
    commands = [command_of(pid) for pid in descendants(served.process.pid)]
    return [command for command in commands if "prefect.engine" in command or "-m deeplab" in command]


def test_a_run_waits_without_a_process_and_goes_on_with_all_it_has(served: Served, store: Path, tmp_path: Path) -> None:
    run = _asks(served, store, seed=1)
    wait_for(lambda: not _processes_of_runs(served), 30)
    question = _question(served, run)
    assert "mean IoU" in question and "weakest classes" in question and "data:image/jpeg;base64," in question
    assert any("the export needs consent" in line for line in served.log(run))

    other = served.start(tiny(tmp_path, train={"training_number_of_steps": 2}))
    assert served.ended(other, 300)["type"] == "COMPLETED", "the run that waits holds the place"
    assert served.run(run)["state"]["name"] == "Suspended"
    assert not list(store.glob("export/*"))

    _answer(served, run, {"export": True, "remark": "good enough"})
    assert served.ended(run, 300)["type"] == "COMPLETED"
    log = wait_for(lambda: (lines := served.log(run)) and any("report " in line for line in lines) and lines)
    for stage in BEFORE:
        assert len([line for line in log if line.startswith(f"{stage} runs because")]) == 1, stage
        assert any(line.startswith("reused ") and f"/{stage}/" in line for line in log), stage
    assert "the export was approved: good enough" in log
    assert list(store.glob("export/*/frozen_inference_graph.pb"))


def test_a_refusal_ends_the_run_with_its_remark(served: Served, store: Path) -> None:
    before = set(store.glob("export/*/*"))
    run = _asks(served, store, seed=2)
    _answer(served, run, {"export": False, "remark": "the balloons are too weak"})
    state = served.ended(run)
    assert state["type"] == "FAILED"
    assert "the export was not approved: the balloons are too weak" in state["message"]
    assert set(store.glob("export/*/*")) == before


@pytest.mark.parametrize("force", [True, False])
def test_a_retry_asks_again_until_there_is_a_yes(served: Served, store: Path, force: bool) -> None:
    before = set(store.glob("export/*"))
    run = _asks(served, store, seed=10 + force)
    assert not served.cancel(run), "the server itself ends what has no process"
    assert served.run(run)["state"]["type"] == "CANCELLED"

    _asks_again(served, run, force)
    _answer(served, run, {"export": False})
    assert served.ended(run)["type"] == "FAILED"

    _asks_again(served, run, force)
    assert set(store.glob("export/*")) == before
    _answer(served, run, {"export": True})
    assert served.ended(run, 300)["type"] == "COMPLETED"
    (entry,) = (path for path in set(store.glob("export/*")) - before if path.is_dir())
    shutil.rmtree(entry)

    served.again(run, force=force)
    wait_for((entry / "frozen_inference_graph.pb.manifest.json").exists, 120)
    assert served.ended(run, 300)["type"] == "COMPLETED"
    assert served.states(run).count("Suspended") == 3


def test_a_run_that_is_moved_on_without_an_answer_exports_nothing(served: Served, store: Path) -> None:
    before = set(store.glob("export/*"))
    run = _asks(served, store, seed=3)
    served.again(run, force=True)
    state = served.ended(run)
    assert state["type"] == "FAILED" and "nobody has answered whether to export; retry the run" in state["message"]
    assert set(store.glob("export/*")) == before


def test_a_run_at_a_terminal_waits_in_place(served: Served, store: Path, tmp_path: Path) -> None:
    config = tmp_path / "run.yaml"
    config.write_text(yaml.safe_dump(_parameters(store, seed=4)))
    environment = {**os.environ, "PREFECT_API_URL": f"{served.url}/api", "PREFECT_HOME": str(tmp_path / "prefect")}
    words = [sys.executable, "-m", "flows.train", f"--config={config}"]
    flow = subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        run = wait_for(lambda: next((run for run in served.of_flow("train") if run["state"]["name"] == "Paused"), None))
        assert flow.poll() is None
        _answer(served, run["id"], {"export": True, "remark": ""})
        printed = flow.communicate(timeout=120)[0]
        assert flow.returncode == 0, printed
        assert "the export was approved" in printed and "frozen graph" in printed
    finally:
        flow.send_signal(signal.SIGINT)
        flow.wait(30)
