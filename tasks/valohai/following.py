"""An execution followed to its end: its status, its log line by line, its metrics."""

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from tasks.valohai.client import Client, doubtful, passing
from tasks.valohai.errors import (
    ExecutionFailed,
    ExecutionLost,
    ExecutionStopped,
    LimitExceeded,
    NotFound,
    Refused,
    ValohaiError,
)
from tasks.valohai.events import Batch, Cursor, read_new
from tasks.valohai.execution import request_stop
from tasks.valohai.records import Event, Execution

# Times in a row that the service may say that it does not know an execution.
_NOT_FOUND_LIMIT = 5
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


@dataclass(frozen=True)
class Limits:
    """How long what may take, in seconds; None: for ever.

    Attributes:
        queue: from creation to start.
        run: from start to end.
        silence: without any answer of the service; the execution is left alone after that.
    """

    queue: float | None = None
    run: float | None = None
    silence: float = 1800.0


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
    return _Following(client, execution, receivers, cursor or Cursor(), limits or Limits(), stop).run()


@dataclass
class _Pace:
    """When to ask: often while little time has passed, less often later, below one request a second on average."""

    began: float = field(default_factory=time.monotonic)
    changed: float = field(default_factory=time.monotonic)
    requests: int = 0

    def pause(self) -> float:
        """Seconds until the next look: 1.5, growing to 10 while the status stays the same."""
        return min(10.0, 1.5 + 0.1 * (time.monotonic() - self.changed))

    def allows_events(self) -> bool:
        """Whether a look at the log, besides those at the status, stays within the average."""
        return self.requests + 1 <= 0.9 * (time.monotonic() - self.began) + 0.5


class _Following:
    def __init__(
        self,
        client: Client,
        execution: Execution,
        receivers: Receivers,
        cursor: Cursor,
        limits: Limits,
        stop: Callable[[], bool] | None,
    ) -> None:
        self._client, self._execution, self._receivers = client, execution, receivers
        self._cursor, self._limits, self._stop = cursor, limits, stop
        self._pace = _Pace()
        self._answered = self._pace.began
        self._not_found = 0
        self._started: float | None = None
        self._exceeded: str | None = None
        self._stopping = self._held_back = self._mute = False
        self._tail: deque[str] = deque(maxlen=_TAIL)
        self._reason = ""

    def run(self) -> Execution:
        self._receivers.status(self._execution)
        while not self._execution.final:
            self._check_limits()
            self._sleep(1.0 if self._stopping else self._pace.pause())
            self._look()
            running = not (self._execution.waiting or self._execution.final)
            if running and not self._held_back and self._pace.allows_events():
                self._read_events()
        self._read_last_events()
        return self._outcome()

    def _sleep(self, seconds: float) -> None:
        """Wait, unless a stop is wanted."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop is not None and not self._stopping and self._stop():
                self._end()
                return
            time.sleep(min(left, 0.25))

    def _look(self) -> None:
        self._pace.requests += 1
        try:
            with self._client.patient(5.0):
                now = self._client.execution(self._execution.id)
        except NotFound:
            self._not_found += 1
            if self._not_found >= _NOT_FOUND_LIMIT:
                raise ExecutionLost(
                    f"{self._name()}: the service does not know it any more; was it deleted? Run the stage again",
                    self._tail,
                ) from None
            return
        except ValohaiError as error:
            self._bear(error)
            return
        self._answered, self._not_found = time.monotonic(), 0
        if now.status != self._execution.status:
            self._pace.changed = time.monotonic()
            self._receivers.status(now)
        if not now.waiting and self._started is None:
            self._started = time.monotonic() - (now.duration or 0.0)
        self._execution = now

    def _bear(self, error: ValohaiError) -> None:
        """Go on in spite of an error that may pass, for a while."""
        silent = time.monotonic() - self._answered
        if not (passing(error) or doubtful(error)) or silent > self._limits.silence:
            raise error
        asked = error.retry_after if isinstance(error, Refused) else None
        if not self._stopping:
            self._sleep(min(asked or 0.0, 60.0))

    def _check_limits(self) -> None:
        if self._stopping or self._execution.final:
            return
        queue, run = self._limits.queue, self._limits.run
        if self._execution.waiting:
            if queue is not None and self._waited() > queue:
                self._exceeded = f"did not start within {queue:g} s; choose another environment or a longer limit"
        elif run is not None and self._started is not None and time.monotonic() - self._started > run:
            self._exceeded = f"did not end within {run:g} s; raise the limit or make it do less"
        if self._exceeded:
            self._end()

    def _waited(self) -> float:
        """Seconds since it was created, by the service's clock: another process may have begun to follow it."""
        try:
            created = datetime.fromisoformat(_with_whole_fraction(self._execution.ctime))
        except ValueError:
            return time.monotonic() - self._pace.began
        if created.tzinfo is None:
            created = created.replace(tzinfo=timezone.utc)
        return (self._client.now() - created).total_seconds()

    def _end(self) -> None:
        """Stop the execution; a later round tries again if the service does not take the request now."""
        self._stopping = True
        try:
            request_stop(self._client, self._execution)
        except ValohaiError as error:
            self._bear(error)
            self._stopping = False

    def _read_events(self) -> None:
        """Hand on what is new; a log that cannot be read now is read later, and fails no run."""
        try:
            with self._client.patient(5.0):
                batch = self._read()
        except ValohaiError as error:
            self._complain(error)
            return
        self._mute = False
        if batch.whole:
            self._deliver(batch)
        else:
            self._held_back = True
            self._receivers.notice(
                f"{self._name()}: more lines have come than the service shows while it runs; "
                "the log goes on, in order, when it has ended"
            )

    def _read(self) -> Batch:
        self._pace.requests += 1
        return read_new(self._client, self._execution.id, self._cursor)

    def _read_last_events(self) -> None:
        try:
            batch = self._read()
        except ValohaiError as error:
            self._complain(error)
            return
        if not batch.whole:
            self._receivers.notice(f"{self._name()}: the service has lost lines of the log before {_first(batch)}")
        self._deliver(batch)
        self._keep_tail([event for event in batch.page if event.message.strip()])

    def _keep_tail(self, events: list[Event]) -> None:
        """What an error will bring: the last lines of the stage; if it has printed none, the platform's."""
        own = [event for event in events if event.stream != "status"] or events
        self._tail = deque((event.message for event in own), maxlen=_TAIL)
        self._reason = next((event.message for event in reversed(own) if event.stream == "stderr"), "")

    def _complain(self, error: ValohaiError) -> None:
        if not self._mute:
            self._receivers.notice(f"the log of {self._name()} cannot be read now: {error}")
        self._mute = True

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

    def _outcome(self) -> Execution:
        execution = self._execution
        if execution.status == "complete":
            return execution
        if self._exceeded:
            raise LimitExceeded(f"{self._name()} {self._exceeded}", self._tail)
        if execution.status == "stopped":
            by = "on request" if self._stopping else "by somebody else"
            raise ExecutionStopped(f"{self._name()} was stopped {by}; run the stage again to go on", self._tail)
        reason = f": {self._reason}" if self._reason else ""
        raise ExecutionFailed(f"{self._name()} ended with status {execution.status}{reason}; last lines:", self._tail)

    def _name(self) -> str:
        page = f" ({self._execution.page})" if self._execution.page else ""
        return f"{self._execution.label} of step {self._execution.step!r}{page}"


def _first(batch: Batch) -> str:
    return batch.new[0].time if batch.new else "its end"


def _with_whole_fraction(text: str) -> str:
    """An ISO time as Python 3.10 reads it: six digits after the point, an offset for ``Z``."""
    text = text.replace("Z", "+00:00")
    head, point, rest = text.partition(".")
    if not point:
        return text
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{head}.{digits[:6]:0<6}{rest[len(digits) :]}"


def _point(event: Event) -> dict[str, Any] | None:
    if event.stream != "stdout" or not event.message.startswith("{"):
        return None
    try:
        values = json.loads(event.message)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None
