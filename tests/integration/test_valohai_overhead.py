"""What following an execution costs: seconds beyond its queue and run time, and requests a second."""

import time
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from deeplab.cli import main
from tasks.call import StageCall
from tasks.sources import Address
from tasks.store import Store
from tasks.valohai.client import Client
from tasks.valohai.connection import Connection
from tasks.valohai.runner import Listeners, Options, Runner
from tests.valohai_server.process import ServerProcess, running

pytestmark = [pytest.mark.timed, pytest.mark.timeout(300)]


def _run(server: ServerProcess, folder: Path, seed: int) -> tuple[float, float]:
    """Convert a few scenes; wall seconds, and those between the execution's creation and its end."""
    scenes = folder / "scenes.zip"
    assert main(["sample", f"--output_path={scenes}", "--size=4"]) == 0
    source = Address(server.upload("scenes.zip", scenes.read_bytes()), "digest")
    call = StageCall("convert", {"seed": seed}, {"dataset": "sample"}, {"source": source})
    entry = Store.open(str(folder / "store")).entry(call.identity())
    listeners = Listeners(lambda file: lambda stream, line: None, lambda *told: None, print, lambda error: False)
    with Client(Connection(server.host.rstrip("/"), SecretStr(server.token), server.project)) as client:
        runner = Runner(client, Options())
        started = time.monotonic()
        runner.run(call, entry, listeners)
        wall = time.monotonic() - started
        (execution,) = (row for row in client.executions() if f"deeplab-key:{entry.identity.key}" in row.tags)
        times = [datetime.fromisoformat(event.time) for event in client.events(execution.id, 0).events]
    return wall, (times[-1] - times[0]).total_seconds()


def test_a_stage_that_does_nothing_costs_three_seconds_more_at_most(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        wall, own = _run(server, tmp_path, seed=0)
    print(f"wall {wall:.2f} s, queue and run {own:.2f} s")
    assert wall - own <= 3.0


def test_polling_stays_below_one_request_a_second(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        server.fault("slow-queue", "POST .*/executions/", seconds=20.0)
        _, own = _run(server, tmp_path, seed=1)
        asked = [entry for entry in server.requests() if "GET /api/v0/executions/" in entry["request"]]
    polls = [entry for entry in asked if "?" in entry["request"] and "project=" not in entry["request"]]
    print(f"{len(polls)} looks in {own:.1f} s")
    assert own > 20 and len(polls) / own < 1.0
