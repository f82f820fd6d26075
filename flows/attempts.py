"""Attempts of a run: how each begins, and how one ends whose process was killed and could not say so."""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterState
from prefect.client.schemas.filters import TaskRunFilterStateType as StateTypes
from prefect.client.schemas.objects import StateType
from prefect.runtime import flow_run
from prefect.states import Crashed

from flows.cancelling import heed_cancel


def begin_attempt() -> None:
    """What every flow does first: end what earlier attempts have left, and heed Cancel from here on."""
    _end_earlier_attempts()
    heed_cancel()


def _end_earlier_attempts() -> None:
    """Mark as crashed what still seems to run of this run's earlier attempts.

    Prefect marks a run whose process is gone, but not the tasks of that run: they would go on for ever in its UI.
    """
    if flow_run.run_count < 2:
        return
    of_this_run = FlowRunFilter(id=FlowRunFilterId(any_=[UUID(str(flow_run.id))]))
    running = TaskRunFilter(state=TaskRunFilterState(type=StateTypes(any_=[StateType.RUNNING])))
    with get_client(sync_client=True) as client:
        for left in client.read_task_runs(flow_run_filter=of_this_run, task_run_filter=running):
            if left.state is not None and left.state.state_details.child_flow_run_id:
                continue  # it shows a run with a process of its own, which may well go on
            client.set_task_run_state(left.id, Crashed(message="The process of its attempt is gone."), force=True)
