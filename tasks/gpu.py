"""One training at a time on a GPU, whichever deployment or command it belongs to.

A place of a limit that Prefect's API keeps and its UI shows. Only a training takes one: what other runs fetch, convert
and measure goes on meanwhile. The place is leased, so a run that is killed gives it back within a minute or so.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from uuid import UUID

import httpx
from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import ConcurrencyLeaseHolder
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

# The limit that registering makes. A machine with a GPU of its own may name another in this variable; empty: none.
LIMIT = "deeplab-gpu"
VARIABLE = "DEEPLAB_GPU"

# Seconds without a sign of life after which a place is given back: Prefect takes no less, and a training whose run was
# killed has stopped long before. Between two signs; between two looks whether a place is free.
_LEASE, _SIGN, _LOOK = 60.0, 15.0, 5.0
# All places are taken; the limit is smaller than one place, because a person has set it to 0.
_NONE_FREE = (httpx.codes.LOCKED, httpx.codes.UNPROCESSABLE_ENTITY)


@contextmanager
def one_training() -> Iterator[None]:
    """Hold a place of this machine's limit, once there is one; where there is no such limit, nothing is waited for.

    Nor is with the embedded API: it forgets its leases when it ends, and a killed run would hold its place for ever.
    """
    with get_client(sync_client=True) as client:
        embedded = client.server_type == ServerType.EPHEMERAL
    name = os.environ.get(VARIABLE, LIMIT)
    if embedded or not name:
        yield
        return
    place = _Place(name)
    if not place.take():
        get_run_logger().info(
            "waiting for the GPU: the limit %s is reached; a run that was killed holds its place for a minute",
            place.name,
        )
        while not place.take():
            time.sleep(_LOOK)
    ended = threading.Event()
    threading.Thread(target=place.keep, args=(ended,), name="gpu-place", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        place.give_back()


class _Place:
    """A place of a limit.

    Args:
        name: of the limit.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._holder = ConcurrencyLeaseHolder(type="flow_run", id=UUID(str(flow_run.id)))
        self._lease: UUID | None = None

    def take(self) -> bool:
        """Whether there was a place, or there is no such limit."""
        try:
            with get_client(sync_client=True) as client:
                answer = client.increment_concurrency_slots_with_lease(
                    [self.name], slots=1, mode="concurrency", lease_duration=_LEASE, holder=self._holder
                )
        except httpx.TransportError:
            return False  # a server that is started anew
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in _NONE_FREE:
                raise
            return False
        found = answer.json()
        self._lease = UUID(found["lease_id"]) if found["limits"] else None
        return True

    def keep(self, ended: threading.Event) -> None:
        """Give signs of life. If the lease ran out while the server was away, take a place anew, if there is one."""
        while self._lease is not None and not ended.wait(_SIGN):
            try:
                with get_client(sync_client=True) as client:
                    client.renew_concurrency_lease(self._lease, _LEASE)
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.GONE:
                    with suppress(httpx.HTTPError):
                        self.take()
            except httpx.TransportError:
                pass  # the next sign may get there

    def give_back(self) -> None:
        """Let the next one have it; should that fail, the lease runs out."""
        if self._lease is not None:
            with suppress(httpx.HTTPError), get_client(sync_client=True) as client:
                client.release_concurrency_slots_with_lease(self._lease)
