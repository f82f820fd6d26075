"""Cancel in Prefect's UI, for runs that no worker looks after: those of a command, and a sweep's own processes.

A worker ends the process of a run that is cancelled and records that it did. Without one the run looks itself.
"""

import os
import signal
import threading
import time
from contextlib import suppress
from contextvars import copy_context
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL
from prefect.states import Cancelled

# Seconds between two looks: a cancelled run is gone within 15, of which its stage may take some to stop.
_LOOK = 3.0
# A client of the watch's own: the run's is closed when the run ends.
_OWN = {"timeout": 5.0}
_cancelled: list[UUID] = []


def heed_cancel() -> None:
    """From here on stop when this run is cancelled, unless a worker sees to that."""
    if deployment.id or not PREFECT_API_URL.value():
        return
    # With its context, which says where the API is.
    watch = threading.Thread(target=copy_context().run, args=(_watch, UUID(str(flow_run.id))), name="cancel-watch")
    watch.daemon = True
    watch.start()


def _watch(run: UUID) -> None:
    while True:
        time.sleep(_LOOK)
        with suppress(httpx.HTTPError), get_client(sync_client=True, httpx_settings=_OWN) as client:
            state = client.read_flow_run(run).state
            if state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED):
                _cancelled.append(run)
                # As a worker does it; Ctrl-C would be ignored in the background of a script.
                os.kill(os.getpid(), signal.SIGTERM)
                return
            if state is not None and state.is_final():
                return


def confirm_cancel() -> bool:
    """Record the end of a run that was stopped because it was cancelled; whether there is one."""
    for run in _cancelled:
        with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
            client.set_flow_run_state(run, Cancelled(message="It was cancelled, and has stopped."))
    return bool(_cancelled)
