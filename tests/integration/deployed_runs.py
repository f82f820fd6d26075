"""Runs of deployments, through a server's API."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

_TRAIN = {
    "depth_multiplier": 0.1,
    "aspp_convs_filters": 16,
    "decoder_filters": 16,
    "train_crop_size": [65, 65],
    "train_batch_size": 2,
    "log_steps": 1,
    "batch_norm_reestimation_batches": 2,
}


def tiny_training(store: Path, steps: int) -> dict[str, Any]:
    """The parameters of a training that takes seconds."""
    train = {**_TRAIN, "training_number_of_steps": steps}
    return {"preset": "demo", "sample": {"size": 16}, "train": train, "store": str(store)}


@dataclass
class Deployed:
    """A server where everything is registered.

    Attributes:
        client: of its API.
    """

    client: httpx.Client

    def create(self, deployment: str, parameters: dict[str, Any]) -> str:
        """Ask for a run; its id."""
        found = self.client.get(f"/deployments/name/{deployment}").raise_for_status().json()["id"]
        body = {"parameters": {"parameters": parameters}}
        run = self.client.post(f"/deployments/{found}/create_flow_run", json=body).raise_for_status().json()
        return str(run["id"])

    def runs(self, flow: str) -> list[dict[str, Any]]:
        body = {"flows": {"name": {"any_": [flow]}}}
        rows: list[dict[str, Any]] = self.client.post("/flow_runs/filter", json=body).raise_for_status().json()
        return rows

    def run(self, identifier: str) -> dict[str, Any]:
        found: dict[str, Any] = self.client.get(f"/flow_runs/{identifier}").raise_for_status().json()
        return found

    def completed(self, *identifiers: str) -> bool:
        """Whether all of these are; none may have ended otherwise."""
        states = [self.run(identifier)["state"] for identifier in identifiers]
        for state in states:
            assert state["type"] not in ("FAILED", "CRASHED", "CANCELLED"), state
        return all(state["type"] == "COMPLETED" for state in states)

    def states(self, identifier: str) -> list[str]:
        """The names of all states that a run was in."""
        rows = self.client.get("/flow_run_states/", params={"flow_run_id": identifier}).raise_for_status().json()
        return [row["name"] for row in rows]

    def log(self, identifier: str) -> list[str]:
        """The lines of a run, in order."""
        body = {"logs": {"flow_run_id": {"any_": [identifier]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        lines: list[str] = []
        while True:
            rows = self.client.post("/logs/filter", json={**body, "offset": len(lines)}).raise_for_status().json()
            lines += [row["message"] for row in rows]
            if len(rows) < 200:
                return lines


def wait_for(found: Callable[[], Any], seconds: float = 180) -> Any:
    """Wait until something is the case; what it is."""
    deadline = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    return value
