"""``python -m deployments.serve`` as a person uses it: deployments, runs, a queue, a schedule, a trigger, the end."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from PIL import Image

from deployments.project_file import FILE, ROOT
from tests.integration.deployed_runs import tiny, wait_for
from tests.processes import that_mention
from tests.serving import Served, serving

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SMALL = {"description": "a tiny flow", "tags": ["deeplab"], "work_pool": {"name": "deeplab"}}


def _file(folder: Path) -> Path:
    """The real deployments, and a tiny one."""
    content = yaml.safe_load(FILE.read_text())
    tick = {
        "name": "tick",
        "entrypoint": "tests/integration/tiny_flows.py:tick",
        "schedules": [{"slug": "often", "interval": 15}],
        **SMALL,
    }
    file = folder / "prefect.yaml"
    file.write_text(yaml.safe_dump({**content, "deployments": [*content["deployments"], tick]}))
    return file


def _left(served: Served) -> dict[int, str]:
    """Processes that were started by it: number -> command line."""
    return that_mention(f"PREFECT_HOME={served.home}\0")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    with serving(folder, f"--file={_file(folder)}") as served:
        yield served


def test_a_training_runs_a_second_one_waits_and_its_network_is_applied(served: Served, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (80, 60), "teal").save(photos / "one.jpg")
    # As a person does in the UI.
    batch = served.client.get("/deployments/name/batch-inference/batch-inference").raise_for_status().json()
    given = {**batch["parameters"]["parameters"], "images": str(photos), "store": str(tmp_path / "batch")}
    served.client.patch(f"/deployments/{batch['id']}", json={"parameters": {"parameters": given}}).raise_for_status()
    first, second = (
        served.start(tiny(tmp_path / name, train={"training_number_of_steps": 3})) for name in ("one", "two")
    )
    wait_for(lambda: {"AwaitingConcurrencySlot"} & {*served.states(first), *served.states(second)}, 60)
    wait_for(lambda: served.completed(first, second))
    earlier, later = sorted((served.run(name) for name in (first, second)), key=lambda run: run["start_time"])
    assert earlier["end_time"] <= later["start_time"], "both trained at once"
    assert earlier["name"] == "sample mobilenet_v2, local"
    graphs = {str(path) for path in tmp_path.glob("*/export/*/frozen_inference_graph.pb")}
    assert len(graphs) == 2

    def applied() -> list[dict[str, Any]]:
        return [run for run in served.of_flow("batch-inference") if run["state"]["type"] == "COMPLETED"]

    wait_for(lambda: len(applied()) == 2, 120)
    assert {run["parameters"]["model"] for run in applied()} == graphs
    assert list(tmp_path.glob("batch/predict/*/ids/one.png"))


def _trained(store: Path) -> list[tuple[float, float]]:
    """When each training in a store began and ended."""
    return [
        (ended - json.loads(manifest.read_text())["ran"]["seconds"], ended)
        for manifest in store.glob("train/*/manifest.json")
        for ended in [manifest.stat().st_mtime]
    ]


def test_trainings_of_all_deployments_take_turns(served: Served, tmp_path: Path) -> None:
    """A training, a sweep with trials as runs, and one more sweep, which waits: each needs what another one has."""
    sweep = {"vary": {"train.seed": [1, 2]}, "concurrency": 2}
    names = ("training", "trials", "own")
    stores = [tmp_path / name for name in names]
    training, trials, own = (tiny(store, train={"training_number_of_steps": 40}) for store in stores)
    runs = [
        served.start(training),
        served.start({**sweep, "base": trials, "deployment": "trial/trial"}, "sweep/sweep"),
        served.start({**sweep, "base": own}, "sweep/sweep"),
    ]
    wait_for(lambda: served.completed(*runs), 600)
    spans = sorted(span for store in stores for span in _trained(store))
    assert len(spans) == 5
    assert all(earlier[1] <= later[0] for earlier, later in itertools.pairwise(spans)), "two trained at once"
    one, *sweeps = (served.run(run) for run in runs)
    assert any(max(one["start_time"], run["start_time"]) < min(one["end_time"], run["end_time"]) for run in sweeps)


def test_a_schedule_fires(served: Served) -> None:
    def ticked() -> list[dict[str, Any]]:
        return [run for run in served.of_flow("tick") if run["auto_scheduled"] and run["state"]["type"] == "COMPLETED"]

    wait_for(ticked, 120)


def test_the_ui_finds_its_api(served: Served) -> None:
    settings = httpx.get(f"{served.url}/ui-settings").raise_for_status().json()
    assert settings["api_url"] == f"{served.url}/api"
    assert httpx.get(served.url, follow_redirects=True).text.lstrip().lower().startswith("<!doctype html>")


def test_one_folder_is_served_once(served: Served) -> None:
    words = [sys.executable, "-m", "deployments.serve", f"--home={served.home}", "--port=0"]
    result = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert f"error: --home={served.home} is served already" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as served:
        run = served.start(tiny(tmp_path / "store", train={"training_number_of_steps": 100_000}))
        wait_for(lambda: list(tmp_path.glob("store/train/*/metrics.jsonl")))
        served.process.send_signal(number)
        assert served.process.wait(60) == (-number if number == signal.SIGKILL else 0)
        wait_for(lambda: not _left(served), 45 if number == signal.SIGKILL else 1)
    if number == signal.SIGKILL:
        return
    assert list(tmp_path.glob("store/train/*/model.ckpt-*.index")), "what was trained is not kept"
    with serving(tmp_path) as served:
        assert served.run(run)["state"]["name"] == "Crashed"


def test_a_server_that_dies_is_told_and_ends_everything(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        (server,) = (pid for pid, line in _left(served).items() if "prefect server start" in line)
        os.kill(server, signal.SIGKILL)
        assert served.process.wait(60) == 1
        assert served.process.stdout is not None
        assert "error: the Prefect server has ended by itself (status -9)" in served.process.stdout.read()
        assert not _left(served)
