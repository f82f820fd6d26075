"""Whole pipelines and sweeps of our ``valohai.yaml``, submitted and followed by their flows."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deeplab.cli import main
from tests.integration.conftest import ROOT, Result
from tests.integration.test_valohai_yaml import TINY
from tests.valohai_server.process import ServerProcess, running

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(tmp_path_factory.mktemp("valohai") / "data", "--grace=5") as process:
        yield process


@pytest.fixture(scope="module")
def scenes(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scenes") / "scenes.zip"
    assert main(["sample", f"--output_path={path}", "--size=4"]) == 0
    return server.upload("scenes.zip", path.read_bytes())


@pytest.fixture
def environment(server: ServerProcess, tmp_path: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VALOHAI_"))}
    return {**kept, **server.variables, "PREFECT_HOME": str(tmp_path / "prefect"), "PYTHONPATH": str(ROOT)}


def _flow(environment: dict[str, str], name: str, *flags: str) -> Result:
    command = [sys.executable, "-m", f"flows.{name}", f"--folder={ROOT}", *flags]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def _records(environment: dict[str, str], scenes: str) -> str:
    """The address of records, made by the pipeline's first node."""
    flags = [f"--parameters.train-node.{name}={value}" for name, value in TINY.items()]
    data = ["--parameters.load-node.dataset=sample", f"--inputs.load-node.ADE20K={scenes}"]
    result = _flow(environment, "valohai_pipeline", "--pipeline=convert", *data, *flags)
    assert result.returncode == 0, result.stdout + result.stderr
    (address,) = re.findall(r"tfrecords\.tar\.gz +(datum://\S+)", result.stdout)
    return address


def test_pipeline_is_followed_and_used_again(environment: dict[str, str], server: ServerProcess, scenes: str) -> None:
    flags = [f"--parameters.train-node.{name}={value}" for name, value in TINY.items()]
    data = ["--parameters.load-node.dataset=sample", f"--inputs.load-node.ADE20K={scenes}"]
    result = _flow(environment, "valohai_pipeline", "--pipeline=full", *data, *flags)
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    for text in ("load-node: complete", "train-node", "frozen_graph", "masks.tar", "results.json", '"miou"'):
        assert text in output, text
    again = _flow(environment, "valohai_pipeline", "--pipeline=full", *data, *flags)
    assert again.returncode == 0, again.stderr
    assert "is complete already" in again.stdout + again.stderr
    with server.client() as client:
        assert client.get("/pipelines/", params={"project": server.project}).json()["count"] == 1


def test_sweep_ends_in_a_table(environment: dict[str, str], scenes: str) -> None:
    flags = [f"--parameters.{name}={value}" for name, value in TINY.items()]
    rates = "--parameters.base_learning_rate=0.001,0.01"
    records = f"--inputs.tfrecords={_records(environment, scenes)}"
    result = _flow(environment, "valohai_sweep", *flags, rates, records)
    assert result.returncode == 0, result.stdout + result.stderr
    table = [line for line in result.stdout.splitlines() if re.search(r"0\.001|0\.01", line)]
    assert len(table) >= 2, result.stdout
    assert "loss" in result.stdout


@pytest.mark.timed
def test_ctrl_c_stops_the_pipeline(environment: dict[str, str], server: ServerProcess, scenes: str) -> None:
    values = {**TINY, "training_number_of_steps": "100000"}
    flags = [f"--parameters.train-node.{name}={value}" for name, value in values.items()]
    data = ["--parameters.load-node.dataset=sample", f"--inputs.load-node.ADE20K={scenes}"]
    command = [sys.executable, "-m", "flows.valohai_pipeline", f"--folder={ROOT}", "--pipeline=convert", *data, *flags]
    flow = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def statuses() -> list[str]:
        with server.client() as client:
            rows = client.get("/executions/", params={"project": server.project, "ordering": "-counter"}).json()
        return [row["status"] for row in rows["results"] if row["step"] == "Train DeepLab model"]

    before = len(statuses())
    _until(lambda: len(statuses()) > before and statuses()[0] == "started", 120)
    flow.send_signal(signal.SIGINT)
    _until(lambda: statuses()[0] == "stopped", 20)
    output = flow.communicate(timeout=60)[0]
    assert flow.returncode == 130, output


def _until(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
