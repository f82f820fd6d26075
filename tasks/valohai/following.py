"""An execution followed to its end: its status, its log line by line, its metrics."""

import json
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tasks.valohai.client import Client
from tasks.valohai.errors import ExecutionFailed, ValohaiError
from tasks.valohai.events import Batch, Cursor, read_new
from tasks.valohai.polling import Following, Limits, Pace, named
from tasks.valohai.records import Event, Execution

# Log lines that an error brings.
_TAIL = 10


def _nothing(value: Any) -> None:
    return None


@dataclass(frozen=True)
class Receivers:
    """Who is told what while an execution is followed; all are called in the following thread.

    Attributes:
        event: every line of the log, once, in order.
        point: every metric point: a line on stdout that is a JSON object.
        status: the execution, whenever its status has changed.
        saved: the cursor, when all lines up to it were handed on; keep it to go on there after a crash.
        notice: what a person should know about the following itself.
    """

    event: Callable[[Event], None] = _nothing
    point: Callable[[Mapping[str, Any]], None] = _nothing
    status: Callable[[Execution], None] = _nothing
    saved: Callable[[Cursor], None] = _nothing
    notice: Callable[[str], None] = _nothing


def follow(
    client: Client,
    execution: Execution,
    receivers: Receivers,
    *,
    cursor: Cursor | None = None,
    limits: Limits | None = None,
    stop: Callable[[], bool] | None = None,
) -> Execution:
    """Follow an execution to its end.

    Args:
        client: of the project.
        execution: which.
        receivers: who is told what.
        cursor: where in its log to go on.
        limits: how long what may take.
        stop: asked again and again; once true, the execution is stopped.

    Returns:
        The complete execution.

    Raises:
        ExecutionFailed: with its last lines.
        ExecutionStopped: if it was stopped, by ``stop`` or by others.
        LimitExceeded: after it was stopped.
        ExecutionLost: if the service does not know it any more.
        ValohaiError: if the service cannot be asked any more; the execution is left as it is.
    """
    log = ExecutionLog(client, receivers, cursor)
    return _ExecutionFollowing(client, execution, log, changed=receivers.status, limits=limits, stop=stop).run()


class ExecutionLog:
    """The log of an execution as it is handed on.

    Attributes:
        tail: its last lines, once all of it was read.
        reason: the last line on stderr, once all of it was read.
    """

    def __init__(self, client: Client, receivers: Receivers, cursor: Cursor | None = None) -> None:
        self._client, self._receivers, self._cursor = client, receivers, cursor or Cursor()
        self._held_back = self._mute = False
        self.tail: deque[str] = deque(maxlen=_TAIL)
        self.reason = ""

    def read(self, execution: Execution, pace: Pace, running: int = 1) -> None:
        """Hand on what is new, if the pace allows it; a log that cannot be read now is read later, and fails no run."""
        if execution.waiting or self._held_back or not pace.allows_events(running):
            return
        pace.requests += 1
        with self._client.patient(5.0):
            batch = self._batch(execution)
        if batch is None:
            return
        if batch.whole:
            self._deliver(batch)
        else:
            self._held_back = True
            self._receivers.notice(
                f"{named(execution)}: more lines have come than the service shows while it runs; "
                "the log goes on, in order, when it has ended"
            )

    def read_to_its_end(self, execution: Execution) -> bool:
        """Hand on the rest of the log of an execution that has ended; returns whether it could be read."""
        batch = self._batch(execution)
        if batch is None:
            return False
        if not batch.whole:
            self._receivers.notice(f"{named(execution)}: the service has lost lines of the log before {_first(batch)}")
        self._deliver(batch)
        self._keep_tail([event for event in batch.page if event.message.strip()])
        return True

    def _batch(self, execution: Execution) -> Batch | None:
        try:
            batch = read_new(self._client, execution.id, self._cursor)
        except ValohaiError as error:
            if not self._mute:
                self._receivers.notice(f"the log of {named(execution)} cannot be read now: {error}")
            self._mute = True
            return None
        self._mute = False
        return batch

    def _deliver(self, batch: Batch) -> None:
        """Hand on; the cursor moves only when all of it was taken."""
        for event in batch.new:
            self._receivers.event(event)
            point = _point(event)
            if point is not None:
                self._receivers.point(point)
        self._cursor.advance(batch.new, batch.counted)
        if batch.new:
            self._receivers.saved(self._cursor)

    def _keep_tail(self, events: list[Event]) -> None:
        """What an error will bring: the last lines of the stage; if it has printed none, the platform's."""
        own = [event for event in events if event.stream != "status"] or events
        self.tail = deque((event.message for event in own), maxlen=_TAIL)
        self.reason = next((event.message for event in reversed(own) if event.stream == "stderr"), "")


class _ExecutionFollowing(Following[Execution]):
    def __init__(
        self,
        client: Client,
        execution: Execution,
        log: ExecutionLog,
        *,
        changed: Callable[[Execution], None],
        limits: Limits | None,
        stop: Callable[[], bool] | None,
    ) -> None:
        super().__init__(client, execution, changed, limits=limits, stop=stop)
        self._log = log

    def _read(self) -> None:
        self._log.read(self._job, self._pace)

    def _read_to_the_end(self) -> None:
        self._log.read_to_its_end(self._job)

    @property
    def _tail(self) -> Sequence[str]:
        return self._log.tail

    def _failure(self) -> ExecutionFailed:
        reason = f": {self._log.reason}" if self._log.reason else ""
        return ExecutionFailed(
            f"{named(self._job)} ended with status {self._job.status}{reason}; last lines:", self._tail
        )


def _first(batch: Batch) -> str:
    return batch.new[0].time if batch.new else "its end"


def _point(event: Event) -> dict[str, Any] | None:
    if event.stream != "stdout" or not event.message.startswith("{"):
        return None
    try:
        values = json.loads(event.message)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
