"""Runs of the training flow against a local Valohai and a real blob service, and what is left of them."""

import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.azurite import Azurite
from tests.integration.conftest import ROOT, Result
from tests.valohai_server.process import ServerProcess, running

STEPS = {
    "convert": "Load data and convert",
    "train": "Train DeepLab model",
    "evaluate": "Evaluate checkpoint",
    "export": "Export trained model to TF frozen graph",
    "predict": "Predict images",
}
TINY = [
    "--preset=demo",
    "--sample.size=8",
    "--train.depth_multiplier=0.1",
    "--train.aspp_convs_filters=16",
    "--train.decoder_filters=16",
    "--train.train_crop_size=65,65",
    "--train.train_batch_size=2",
    "--train.training_number_of_steps=2",
    "--train.log_steps=1",
    "--train.batch_norm_reestimation_batches=1",
    "--predict.max_images=1",
]
# Seconds that a tiny run may take on a machine that does other work too.
PATIENCE = 400


@dataclass(frozen=True)
class Lab:
    """A project of its own at the server, a container of its own, and a folder.

    Attributes:
        server: the local Valohai.
        blobs: the blob service.
        project: id of the project.
        container: name of the container.
        folder: for the flow's caches and databases.
    """

    server: ServerProcess
    blobs: Azurite
    project: str
    container: str
    folder: Path

    @classmethod
    def make(cls, server: ServerProcess, blobs: Azurite, folder: Path) -> "Lab":
        with server.client() as client:
            name = f"lab-{uuid.uuid4().hex[:8]}"
            project = client.post("/projects/", json={"name": name}).raise_for_status().json()["id"]
        return cls(server, blobs, project, blobs.create_container(), folder)

    @property
    def environment(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VALOHAI_"))}
        return {
            **kept,
            **self.server.variables,
            "VALOHAI_PROJECT": self.project,
            "AZURE_STORAGE_CONNECTION_STRING": self.blobs.connection_string,
            "XDG_CACHE_HOME": str(self.folder / "cache"),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "DO_NOT_TRACK": "1",
            "PYTHONPATH": str(ROOT),
        }

    def command(self, *flags: str) -> list[str]:
        return [sys.executable, "-m", "flows.train", *TINY, f"--store=az://{self.container}/store", *flags]

    def run(self, *flags: str, timeout: float = PATIENCE) -> Result:
        """Run the flow to its end."""
        return subprocess.run(
            self.command(*flags), cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=timeout
        )

    def start(self, *flags: str, name: str = "flow") -> subprocess.Popen[bytes]:
        """Start the flow; what it prints goes to ``NAME.txt``."""
        with (self.folder / f"{name}.txt").open("ab") as output:
            return subprocess.Popen(
                self.command(*flags), cwd=self.folder, env=self.environment, stdout=output, stderr=output
            )

    # What is left of a run.

    @property
    def store(self) -> Path:
        (store,) = (self.folder / "cache" / "deeplab-prefect" / "stores").iterdir()
        return store

    def digests(self) -> dict[str, str]:
        """Stage -> digest of its products, wherever they are."""
        found = {}
        for stage in (*STEPS, "archive"):
            for path in (self.store / stage).rglob("*manifest.json"):
                found[stage] = json.loads(path.read_text())["digest"]
            for path in (self.store / stage).glob("*.valohai.json"):
                found[stage] = json.loads(path.read_text())["manifest"]["digest"]
        return found

    def executions(self) -> list[dict[str, Any]]:
        with self.server.client() as client:
            query = {"project": self.project, "limit": 200, "ordering": "counter"}
            return client.get("/executions/", params=query).raise_for_status().json()["results"]

    def events(self, execution: Mapping[str, Any]) -> list[str]:
        with self.server.client() as client:
            answer = client.get(f"/executions/{execution['id']}/events/", params={"limit": 0})
            return [event["message"] for event in answer.raise_for_status().json()["events"]]

    def outputs(self, execution: Mapping[str, Any]) -> list[str]:
        with self.server.client() as client:
            query = {"output_execution": execution["id"], "limit": 200}
            rows = client.get("/data/", params=query).raise_for_status().json()["results"]
            return sorted(row["name"] for row in rows)

    def execution(self, stage: str) -> dict[str, Any] | None:
        """The newest execution of a stage."""
        found = [row for row in self.executions() if row["step"] == STEPS[stage]]
        return found[-1] if found else None

    def wait_for(self, condition: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Wait until something is the case; what it is."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                found = condition()
            except httpx.HTTPError:  # the server is away, on purpose
                found = None
            if found:
                return found
            assert time.monotonic() < deadline, (self.folder / "flow.txt").read_text()[-3000:]
            time.sleep(0.1)

    def check_once(self) -> None:
        """Exactly one execution a stage, each complete, and its log in the store holds every line once, in order."""
        rows = self.executions()
        assert Counter(row["step"] for row in rows) == Counter(STEPS.values())
        assert {row["status"] for row in rows} == {"complete"}
        for stage, step in STEPS.items():
            (log,) = (self.store / stage).glob("*.log")
            (row,) = (row for row in rows if row["step"] == step)
            assert log.read_text().splitlines() == [line for text in self.events(row) for line in text.splitlines()]


@contextmanager
def running_lab(blobs: Azurite, folder: Path) -> Iterator[Lab]:
    """A lab with a local Valohai of its own, until the end of the block."""
    with running(folder / "valohai", "--grace=5", f"--azure=devstoreaccount1={blobs.endpoint}") as server:
        yield Lab.make(server, blobs, folder)


def kill(process: subprocess.Popen[bytes], number: int = signal.SIGKILL) -> int:
    """End a flow; its exit status."""
    process.send_signal(number)
    return process.wait(60)
