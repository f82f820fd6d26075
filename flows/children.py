"""Trials on their way: as processes on this machine, or as runs of a deployment wherever its workers are."""

import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

import httpx
import yaml
from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import TERMINAL_STATES, FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
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
        label: what sets it apart from the others.
        log: file that takes all it says; the last line says why it failed.
    """

    def __init__(self, parameters: TrainFlowParameters, label: str, log: Path) -> None:
        self._log = log
        config = log.with_suffix(".yaml")
        config.write_text(yaml.safe_dump(_of_trial(parameters, label)), encoding="utf-8")
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
        if status < 0:
            # It could not say why, and what it said last is not the reason.
            return f"ended by {signal.Signals(-status).name}, as where memory is short (log: {self._log})"
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


def _of_trial(parameters: TrainFlowParameters, label: str) -> dict[str, Any]:
    """The parameters of the flow ``trial``, as JSON holds them."""
    return {**parameters.model_dump(mode="json", exclude_none=True), "label": label}


def _api() -> dict[str, str]:
    """Variables that name the API of this run, the embedded one too, as which it keeps no place for a GPU."""
    with get_client(sync_client=True) as client:
        url = {"PREFECT_API_URL": str(client.api_url)}
        return {**url, VARIABLE: ""} if client.server_type == ServerType.EPHEMERAL else url


class DeploymentChild:
    """A trial as a run of a deployment of the flow ``trial``.

    Args:
        parameters: of the trial.
        label: what sets it apart from the others.
        deployment: its name, ``trial/NAME``.

    Raises:
        TrialError: if there is no such deployment.
    """

    def __init__(self, parameters: TrainFlowParameters, label: str, deployment: str) -> None:
        given = {"parameters": _of_trial(parameters, label)}
        if (left := _left_running(given)) is not None:
            get_run_logger().info("%s runs since an earlier attempt, as %s", label, left.name)
            self._id: UUID = left.id
            return
        try:
            run = run_deployment(deployment, parameters=given, timeout=0, as_subflow=True)
        except ObjectNotFound:
            raise TrialError(
                f"--deployment={deployment}: no such deployment; `prefect deployment ls` lists them, and "
                "`python -m deployments.register` makes ours"
            ) from None
        assert isinstance(run, FlowRun)  # typed for asynchronous callers too
        self._id = run.id

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


def _left_running(given: Mapping[str, Any]) -> FlowRun | None:
    """The run with these parameters that an earlier attempt of this sweep started, if it has not ended."""
    if flow_run.run_count < 2:
        return None
    of_this_run = FlowRunFilter(
        parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[UUID(str(flow_run.id))]),
        state=FlowRunFilterState(type=FlowRunFilterStateType(not_any_=list(TERMINAL_STATES))),
    )
    with get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=of_this_run)
    return next((run for run in runs if run.parameters == given), None)
