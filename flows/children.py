"""Trials on their way: as processes on this machine, or as runs of a deployment wherever its workers are."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol
from uuid import UUID

import httpx
import yaml
from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.states import Cancelling

from deeplab.errors import DeepLabError
from deeplab.stage.stop import STDIN_VARIABLE
from flows.parameters import TrainFlowParameters
from tasks.gpu import VARIABLE

# Seconds a process has to stop: its training writes a checkpoint first.
_GRACE = 20.0


class TrialError(DeepLabError):
    """A trial could not be started."""


class Child(Protocol):
    """A trial that was started."""

    def ended(self) -> str | None:
        """None while it runs; then nothing, or why it failed."""

    def stop(self, *, wanted: bool) -> None:
        """Ask it to stop; what it has trained stays.

        Args:
            wanted: for good: what it has started elsewhere is stopped too. Else that goes on for a later run.
        """

    def wait_for_stop(self) -> None:
        """Wait until it has stopped, or end it."""


Start = Callable[[TrainFlowParameters, str], Child]


class LocalChild:
    """A trial as a process of its own, which does not outlive this one.

    Args:
        parameters: of the trial.
        log: file that takes all it says; the last line says why it failed.
    """

    def __init__(self, parameters: TrainFlowParameters, log: Path) -> None:
        self._log = log
        config = log.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(parameters.model_dump(mode="json", exclude_none=True)), encoding="utf-8")
        with log.open("a", encoding="utf-8") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.trial", f"--config={config}"],
                stdin=subprocess.PIPE,
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_api(), STDIN_VARIABLE: "1"},
                start_new_session=True,
            )

    def ended(self) -> str | None:
        status = self._process.poll()
        if status is None:
            return None
        if status == 0:
            return ""
        with self._log.open(encoding="utf-8", errors="replace") as file:
            last = deque((line for line in file if line.strip()), maxlen=1)
        return f"{''.join(last).strip() or f'ended with status {status}'} (log: {self._log})"

    def stop(self, *, wanted: bool) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT if wanted else signal.SIGTERM)

    def wait_for_stop(self) -> None:
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def _api() -> dict[str, str]:
    """Variables that name the API of this run, the embedded one too, as which it keeps no place for a GPU."""
    with get_client(sync_client=True) as client:
        url = {"PREFECT_API_URL": str(client.api_url)}
        return {**url, VARIABLE: ""} if client.server_type == ServerType.EPHEMERAL else url


class DeploymentChild:
    """A trial as a run of a deployment of the flow ``trial``.

    Args:
        parameters: of the trial.
        deployment: its name, ``trial/NAME``.
        name: of the run.

    Raises:
        TrialError: if there is no such deployment.
    """

    def __init__(self, parameters: TrainFlowParameters, deployment: str, name: str) -> None:
        given = {"parameters": parameters.model_dump(mode="json", exclude_none=True)}
        try:
            run = run_deployment(deployment, parameters=given, flow_run_name=name, timeout=0, as_subflow=True)
        except ObjectNotFound:
            raise TrialError(
                f"--deployment={deployment}: no such deployment; `prefect deployment ls` lists them, and "
                "`python -m deployments.register` makes ours"
            ) from None
        assert isinstance(run, FlowRun)  # typed for asynchronous callers too
        self._id: UUID = run.id

    def ended(self) -> str | None:
        try:
            with get_client(sync_client=True) as client:
                state = client.read_flow_run(self._id).state
        except httpx.TransportError:
            return None  # a server that is started anew; the run goes on meanwhile
        if state is None or not state.is_final():
            return None
        return "" if state.is_completed() else f"{state.name}: {state.message or 'see its run in Prefect'}"

    def stop(self, *, wanted: bool) -> None:
        if not wanted:
            return  # it has a worker of its own; a later sweep waits for what it makes
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(self._id, Cancelling())
        except httpx.HTTPError as error:
            get_run_logger().error("run %s may still run, cancel it in the UI: %s", self._id, error)

    def wait_for_stop(self) -> None:
        """Its worker does that."""
