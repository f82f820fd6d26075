"""``python -m deployments.serve`` as a person uses it: deployments, runs, a queue, a schedule, a trigger, the end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.project_file import FILE, ROOT
from tests.integration.deployed_runs import TINY, Runs, wait_for
from tests.processes import that_mention

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]
SMALL = {"description": "a tiny flow", "tags": ["deeplab"], "work_pool": {"name": "deeplab"}}


@dataclass
class Served(Runs):
    process: subprocess.Popen[str]
    home: Path

    def train(self, store: Path, steps: int) -> str:
        return self.start({**TINY, "store": str(store), "train": {**TINY["train"], "training_number_of_steps": steps}})


def _file(folder: Path) -> Path:
    """The real deployments, and two tiny ones."""
    content = yaml.safe_load(FILE.read_text())
    batch = {
        "name": "batch-inference",
        "entrypoint": "tests/integration/tiny_flows.py:batch_inference",
        "parameters": {"parameters": {"model": "-", "images": "photos"}},
        **SMALL,
    }
    tick = {
        "name": "tick",
        "entrypoint": "tests/integration/tiny_flows.py:tick",
        "schedules": [{"slug": "often", "interval": 15}],
        **SMALL,
    }
    file = folder / "prefect.yaml"
    file.write_text(yaml.safe_dump({**content, "deployments": [*content["deployments"], batch, tick]}))
    return file


@contextmanager
def _serving(folder: Path, *options: str) -> Iterator[Served]:
    home = folder / "prefect"
    words = [sys.executable, "-m", "deployments.serve", f"--home={home}", "--port=0", *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    process = subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("export PREFECT_API_URL="):
                break
        else:
            pytest.fail("".join(lines))
        address = lines[-1].partition("=")[2].split()[0]
        with httpx.Client(base_url=address, timeout=30) as client:
            yield Served(client, process, home)
    finally:
        process.terminate()
        process.wait(90)
        process.stdout.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("serve")
    with _serving(folder, f"--file={_file(folder)}") as served:
        yield served


def test_a_training_runs_a_second_one_waits_and_its_network_is_applied(served: Served, tmp_path: Path) -> None:
    first, second = (served.train(tmp_path / name, steps=3) for name in ("one", "two"))
    wait_for(lambda: {"AwaitingConcurrencySlot"} & {*served.states(first), *served.states(second)}, 60)
    wait_for(lambda: all(served.run(name)["state"]["type"] == "COMPLETED" for name in (first, second)))
    earlier, later = sorted((served.run(name) for name in (first, second)), key=lambda run: run["start_time"])
    assert earlier["end_time"] <= later["start_time"], "both trained at once"
    assert earlier["name"] == "sample mobilenet_v2"
    graphs = {str(path) for path in tmp_path.glob("*/export/*/frozen_inference_graph.pb")}
    assert len(graphs) == 2

    def applied() -> list[dict[str, Any]]:
        return [run for run in served.of_flow("batch-inference") if run["state"]["type"] == "COMPLETED"]

    wait_for(lambda: len(applied()) == 2, 60)
    assert {run["parameters"]["parameters"]["model"] for run in applied()} == graphs
    assert {run["parameters"]["parameters"]["images"] for run in applied()} == {"photos"}


def test_a_schedule_fires(served: Served) -> None:
    def ticked() -> list[dict[str, Any]]:
        return [run for run in served.of_flow("tick") if run["auto_scheduled"] and run["state"]["type"] == "COMPLETED"]

    wait_for(ticked, 120)


def test_the_ui_finds_its_api(served: Served) -> None:
    address = str(served.client.base_url).removesuffix("/api/")
    settings = httpx.get(f"{address}/ui-settings").raise_for_status().json()
    assert settings["api_url"] == f"{address}/api"
    assert httpx.get(address, follow_redirects=True).text.lstrip().lower().startswith("<!doctype html>")


def test_one_folder_is_served_once(served: Served) -> None:
    words = [sys.executable, "-m", "deployments.serve", f"--home={served.home}", "--port=0"]
    result = subprocess.run(
        words, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False
    )
    assert result.returncode == 2
    assert f"error: --home={served.home} is served already" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running(tmp_path: Path, number: signal.Signals) -> None:
    with _serving(tmp_path) as served:
        run = served.train(tmp_path / "store", steps=100_000)
        wait_for(lambda: list(tmp_path.glob("store/train/*/metrics.jsonl")))
        served.process.send_signal(number)
        assert served.process.wait(60) == (-number if number == signal.SIGKILL else 0)
        wait_for(lambda: not that_mention(str(tmp_path)), 45 if number == signal.SIGKILL else 1)
    if number == signal.SIGKILL:
        return
    assert list(tmp_path.glob("store/train/*/model.ckpt-*.index")), "what was trained is not kept"
    with _serving(tmp_path) as served:
        assert served.run(run)["state"]["name"] == "Crashed"


def test_a_server_that_dies_is_told_and_ends_everything(tmp_path: Path) -> None:
    with _serving(tmp_path) as served:
        (server,) = (pid for pid, line in that_mention(str(served.home)).items() if "prefect server start" in line)
        os.kill(server, signal.SIGKILL)
        assert served.process.wait(60) == 1
        assert served.process.stdout is not None
        assert "error: the Prefect server has ended by itself (status -9)" in served.process.stdout.read()
        assert not that_mention(str(served.home))
