"""Runs of the deployment ``train/train-local`` at a real Prefect server, as its API tells them, and a real worker."""

import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

# Parameters of a training of seconds.
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


@dataclass
class Runs:
    """The runs of a server.

    Attributes:
        client: of its API.
    """

    client: httpx.Client

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """What the API answers; asked again while its database is busy, as Prefect's own clients do."""
        answer = wait_for(lambda: _unless_busy(self.client.request(method, path, **more)))
        return answer.raise_for_status().json()

    def start(self, values: Mapping[str, Any]) -> str:
        """Start a run with these parameters; its id."""
        found = self.ask("GET", "/deployments/name/train/train-local")["id"]
        body = {"parameters": {"parameters": values}}
        return str(self.ask("POST", f"/deployments/{found}/create_flow_run", json=body)["id"])

    def of_flow(self, flow: str) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = self.ask("POST", "/flow_runs/filter", json={"flows": {"name": {"any_": [flow]}}})
        return rows

    def run(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/flow_runs/{identifier}")
        return found

    def states(self, identifier: str) -> list[str]:
        """The names of its states, from the first on."""
        rows = self.ask("GET", "/flow_run_states/", params={"flow_run_id": identifier})
        return [row["name"] for row in sorted(rows, key=lambda row: row["timestamp"])]

    def task_states(self, identifier: str) -> set[str]:
        """The states that its tasks, of all its attempts, are in."""
        rows = self.ask("POST", "/task_runs/filter", json={"flow_runs": {"id": {"any_": [identifier]}}})
        return {row["state"]["name"] for row in rows}

    def log(self, identifier: str) -> list[str]:
        """What a run has said, over all its attempts."""
        lines: list[str] = []
        while True:
            query = {"logs": {"flow_run_id": {"any_": [identifier]}}, "sort": "TIMESTAMP_ASC", "offset": len(lines)}
            rows = self.ask("POST", "/logs/filter", json=query)
            if not rows:
                return lines
            lines += [row["message"] for row in rows]


def _unless_busy(answer: httpx.Response) -> httpx.Response | None:
    return None if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else answer


class Worker:
    """A worker of the pool ``deeplab`` that can be killed, and started again.

    Args:
        environment: of the worker and of its runs.
        log: takes what it prints.
    """

    def __init__(self, environment: Mapping[str, str], log: Path) -> None:
        self._environment, self._log = environment, log
        self.start()

    def start(self) -> None:
        words = ["prefect", "worker", "start", "--pool=deeplab", "--type=process"]
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", *words], env=self._environment, stdout=output, stderr=output
            )

    def kill(self) -> None:
        """End it without notice; its runs are not told."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(60)


def wait_for(found: Callable[[], Any], seconds: float = 180, pause: float = 0.5) -> Any:
    """Wait until something is the case; what it is."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(pause)
    return value
