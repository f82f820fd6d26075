"""Whether a run that is told to stop was cancelled by a person, or merely lost its process.

Prefect's worker delivers both as SIGTERM. What runs elsewhere is stopped in the first case only; in all others it goes
on, and a later run follows it.
"""

from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import TerminationSignal
from prefect.runtime import flow_run

# Seconds for the API's answer: the worker ends a cancelled run 15 s after the signal.
_PATIENCE = 3.0
_CANCELLED = (StateType.CANCELLING, StateType.CANCELLED)


def stop_is_wanted(interruption: BaseException) -> bool:
    """Whether what this run has started elsewhere is to be stopped too.

    Args:
        interruption: what breaks the run off. Ctrl-C means yes; for what Prefect raises at SIGTERM its API is asked,
            and no answer means no, as anything else does.
    """
    if isinstance(interruption, TerminationSignal):
        return _cancelled()
    return isinstance(interruption, KeyboardInterrupt)


def _cancelled() -> bool:
    try:
        with get_client(sync_client=True, httpx_settings={"timeout": _PATIENCE}) as client:
            state = client.read_flow_run(UUID(str(flow_run.id))).state
    except Exception:  # whatever the client raises
        return False
    return state is not None and state.type in _CANCELLED
