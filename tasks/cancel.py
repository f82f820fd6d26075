"""Whether a run that is broken off was cancelled by a person, or merely lost its process."""

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal

# Seconds for Prefect's answer: its worker ends a cancelled run 15 s after the signal.
_PATIENCE = 3.0


def is_cancelled(error: BaseException) -> bool:
    """Whether an exception means that a person wants the run to end, so that remote work must end too.

    Ctrl-C does. SIGTERM may come from Prefect's worker, for a cancel, or from a machine that shuts down: the state of
    the run tells. Without an answer remote work is left alone, to be found again by the next run.
    """
    if isinstance(error, KeyboardInterrupt):
        return True
    return isinstance(error, TerminationSignal) and _run_is_cancelling()


def _run_is_cancelling() -> bool:
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return False
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": _PATIENCE}) as client:
            state = client.read_flow_run(context.flow_run.id).state
    except Exception:  # whatever the client raises: no answer
        return False
    return state is not None and (state.is_cancelling() or state.is_cancelled())
