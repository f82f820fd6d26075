"""``python -m deployments.serve`` in a folder of its own, and its runs through Prefect's API."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect.client.base import PrefectHttpxSyncClient

from deployments.project_file import ROOT
from flows.command_line import merge
from tests.processes import descendants, left_of

# What the button Cancel of the UI asks for.
CANCEL = {"type": "CANCELLING", "name": "Cancelling"}
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
# A network that trains in seconds; what the demo leaves open is as small as it can be.
TINY: dict[str, Any] = {
    "preset": "demo",
    "sample": {"size": 16},
    "train": {
        "depth_multiplier": 0.1,
        "aspp_convs_filters": 16,
        "decoder_filters": 16,
        "train_crop_size": [65, 65],
        "train_batch_size": 2,
        "log_steps": 1,
        "batch_norm_reestimation_batches": 2,
    },
}


def tiny(store: object, **sections: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a training flow that takes seconds.

    Args:
        store: its store.
        sections: more of them.
    """
    return merge(TINY, {"store": str(store), **sections})


@dataclass
class Served:
    """A server with its UI, a worker and the deployments.

    Attributes:
        process: ``deployments.serve``.
        client: of the API.
        home: folder of the database and the logs.
    """

    process: subprocess.Popen[str]
    client: httpx.Client
    home: Path

    @property
    def url(self) -> str:
        """Of the UI."""
        return str(self.client.base_url).removesuffix("/api/")

    def start(self, parameters: Mapping[str, Any], deployment: str = "train/train-local") -> str:
        """Start a run of a deployment; its id."""
        found = self.client.get(f"/deployments/name/{deployment}").raise_for_status().json()["id"]
        body = {"parameters": {"parameters": parameters}}
        run = self.client.post(f"/deployments/{found}/create_flow_run", json=body).raise_for_status().json()
        return str(run["id"])

    def runs(self, flow: str) -> list[dict[str, Any]]:
        """All runs of a flow, the newest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        rows: list[dict[str, Any]] = self.client.post("/flow_runs/filter", json=body).raise_for_status().json()
        return rows

    def run(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/flow_runs/{identifier}").raise_for_status().json()
        return found

    def states(self, identifier: str) -> list[str]:
        """The names of all states that a run has had."""
        rows = self.client.get("/flow_run_states/", params={"flow_run_id": identifier}).raise_for_status().json()
        return [row["name"] for row in rows]

    def ended(self, identifier: str, seconds: float = 180) -> dict[str, Any]:
        """The final state of a run, once it has one."""

        def final() -> dict[str, Any] | None:
            state: dict[str, Any] = self.run(identifier)["state"]
            return state if state["type"] in FINAL else None

        found: dict[str, Any] = wait_for(final, seconds)
        return found

    def log(self, identifier: str) -> list[str]:
        """What a run has logged."""
        body = {"logs": {"flow_run_id": {"any_": [identifier]}}, "sort": "TIMESTAMP_ASC"}
        rows = self.client.post("/logs/filter", json=body).raise_for_status().json()
        return [row["message"] for row in rows]

    def cancel(self, identifier: str) -> bool:
        """Do what the button Cancel of the UI does; whether the run was not over yet."""
        answer = (
            self.client.post(f"/flow_runs/{identifier}/set_state", json={"state": CANCEL}).raise_for_status().json()
        )
        return str(answer["status"]) == "ACCEPT"


@contextmanager
def serving(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve until the end of the block, after which no process is left.

    Args:
        folder: the current folder of the command; its home is below.
        options: more of its command line.
        environment: of the command; ours if None.
    """
    home = folder / "prefect"
    words = [sys.executable, "-m", "deployments.serve", f"--home={home}", "--port=0", *options]
    # Another server's address counts for nothing.
    given = {**(environment or os.environ), "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
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
        # Prefect's own client asks again where the server is too busy to answer, which a loaded machine makes it.
        with PrefectHttpxSyncClient(base_url=lines[-1].partition("=")[2].split()[0], timeout=60) as client:
            yield Served(process, client, home)
    finally:
        family = descendants(process.pid)
        process.terminate()
        process.wait(90)
        process.stdout.close()
    assert left_of(family, 20) == []


def wait_for(found: Callable[[], Any], seconds: float = 180) -> Any:
    """What is found, once it is."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"not there after {seconds} s"
        time.sleep(0.5)
    return value
