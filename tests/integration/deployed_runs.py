"""Runs of deployments at a real Prefect server, as its API tells them, and a real worker."""

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from prefect.client.base import PrefectHttpxSyncClient

from deployments.project_file import ROOT
from flows.command_line import merge

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
# Lines of a log that the API gives at once.
_PAGE = 200


def tiny(store: object, **sections: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a training flow that takes seconds.

    Args:
        store: its store.
        sections: more of them.
    """
    return merge(TINY, {"store": str(store), **sections})


@contextmanager
def client_of(address: str) -> Iterator[httpx.Client]:
    """Prefect's own client of an API: it asks again where the server is too busy to answer."""
    with PrefectHttpxSyncClient(base_url=address, timeout=60) as client:
        yield client


@dataclass
class Runs:
    """The runs of a server where everything is registered.

    Attributes:
        client: of its API.
    """

    client: httpx.Client

    def _ask(self, method: str, path: str, **more: Any) -> Any:
        return self.client.request(method, path, **more).raise_for_status().json()

    def start(self, parameters: Mapping[str, Any], deployment: str = "train/train-local") -> str:
        """Start a run of a deployment; its id."""
        found = self._ask("GET", f"/deployments/name/{deployment}")["id"]
        body = {"parameters": {"parameters": parameters}}
        return str(self._ask("POST", f"/deployments/{found}/create_flow_run", json=body)["id"])

    def of_flow(self, flow: str) -> list[dict[str, Any]]:
        """All runs of a flow, the newest first."""
        body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_DESC"}
        rows: list[dict[str, Any]] = self._ask("POST", "/flow_runs/filter", json=body)
        return rows

    def run(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self._ask("GET", f"/flow_runs/{identifier}")
        return found

    def completed(self, *identifiers: str) -> bool:
        """Whether all of these are; none may have ended otherwise."""
        states = [self.run(identifier)["state"] for identifier in identifiers]
        for state in states:
            assert state["type"] not in ("FAILED", "CRASHED", "CANCELLED"), state
        return all(state["type"] == "COMPLETED" for state in states)

    def ended(self, identifier: str, seconds: float = 180) -> dict[str, Any]:
        """The final state of a run, once it has one."""

        def final() -> dict[str, Any] | None:
            state: dict[str, Any] = self.run(identifier)["state"]
            return state if state["type"] in FINAL else None

        found: dict[str, Any] = wait_for(final, seconds)
        return found

    def cancel(self, identifier: str) -> bool:
        """Do what the button Cancel of the UI does; whether the run was not over yet."""
        answer = self._ask("POST", f"/flow_runs/{identifier}/set_state", json={"state": CANCEL})
        return str(answer["status"]) == "ACCEPT"

    def again(self, identifier: str, *, force: bool) -> None:
        """Do what Retry does; the UI and ``prefect flow-run retry`` force it, past Prefect's rules."""
        body = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": force}
        answer = self._ask("POST", f"/flow_runs/{identifier}/set_state", json=body)
        assert answer["status"] == "ACCEPT", answer

    def states(self, identifier: str) -> list[str]:
        """The names of all states that a run was in, from the first on."""
        rows = self._ask("GET", "/flow_run_states/", params={"flow_run_id": identifier})
        return [row["name"] for row in sorted(rows, key=lambda row: row["timestamp"])]

    def task_states(self, identifier: str) -> set[str]:
        """The states that its tasks, of all its attempts, are in."""
        rows = self._ask("POST", "/task_runs/filter", json={"flow_runs": {"id": {"any_": [identifier]}}})
        return {row["state"]["name"] for row in rows}

    def log(self, identifier: str) -> list[str]:
        """The lines of a run, over all its attempts, in order."""
        query = {"logs": {"flow_run_id": {"any_": [identifier]}}, "sort": "TIMESTAMP_ASC", "limit": _PAGE}
        lines: list[str] = []
        while True:
            rows = self._ask("POST", "/logs/filter", json={**query, "offset": len(lines)})
            lines += [row["message"] for row in rows]
            if len(rows) < _PAGE:
                return lines


class Worker:
    """A worker of the pool ``deeplab`` that can be killed, and started again.

    Args:
        environment: of the worker and of its runs.
        log: takes what it prints.
        options: more of its command line.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, *options: str) -> None:
        self._environment, self.log = environment, log
        self._words = ["prefect", "worker", "start", "--pool=deeplab", "--type=process", *options]
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *self._words], cwd=ROOT, env=self._environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """End it without notice; its runs are not told."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)


def wait_for(found: Callable[[], Any], seconds: float = 180, pause: float = 0.5) -> Any:
    """Wait until something is the case; what it is."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline, f"not so after {seconds:g} s"
        time.sleep(pause)
    return value
