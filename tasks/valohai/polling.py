"""Any job followed to its end: asked again and again, in good pace, patiently, within limits, until it is stopped.

``following`` follows an execution, ``groups`` a pipeline or a task with their executions.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import ClassVar, Generic, TypeVar

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
from tasks.valohai.execution import request_stop
from tasks.valohai.records import Execution, Job

# Times in a row that the service may say that it does not know a job.
_NOT_FOUND_LIMIT = 5

J = TypeVar("J", bound=Job)


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


@dataclass
class Pace:
    """When to ask: often while little time has passed, less often later, below one request a second on average."""

    began: float = field(default_factory=time.monotonic)
    changed: float = field(default_factory=time.monotonic)
    requests: int = 0

    def pause(self) -> float:
        """Seconds until the next look: 1, growing to 10 while the status stays the same."""
        return min(10.0, 1.0 + 0.1 * (time.monotonic() - self.changed))

    def allows_events(self, running: int = 1) -> bool:
        """Whether a look at a log, besides those at the status, stays within the average of each running execution."""
        return self.requests + 1 <= 0.9 * running * (time.monotonic() - self.began) + 0.5


class Following(ABC, Generic[J]):
    """A job followed to its end; what is read meanwhile, and what its end means, its kind says.

    Args:
        client: of the project.
        job: what is followed.
        changed: told the job at first, and whenever its state has changed.
        limits: how long what may take.
        stop: asked again and again; once true, the job is stopped.
    """

    # What a person does to go on after it was stopped or lost.
    _remedy: ClassVar[str] = "run the stage again"

    def __init__(
        self,
        client: Client,
        job: J,
        changed: Callable[[J], None],
        *,
        limits: Limits | None = None,
        stop: Callable[[], bool] | None = None,
    ) -> None:
        self._client, self._job, self._changed = client, job, changed
        self._limits, self._stop = limits or Limits(), stop
        self._pace = Pace()
        self._answered = self._pace.began
        self._not_found = 0
        self._started: float | None = None
        self._exceeded: str | None = None
        self._stopping = False

    def run(self) -> J:
        """Follow it; returns the complete job.

        Raises:
            ValohaiError: see ``follow``.
        """
        self._changed(self._job)
        while not self._job.final:
            self._check_limits()
            self._sleep(1.0 if self._stopping else self._pace.pause())
            self._look()
            if not (self._job.waiting or self._job.final):
                self._read()
        self._read_to_the_end()
        return self._outcome()

    @abstractmethod
    def _read(self) -> None:
        """Read what is new, while the job runs."""

    @abstractmethod
    def _read_to_the_end(self) -> None:
        """Read the rest, once the job has ended."""

    @abstractmethod
    def _failure(self) -> ExecutionFailed:
        """What an end with an error tells."""

    @property
    @abstractmethod
    def _tail(self) -> Sequence[str]:
        """The last lines."""

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
                now = self._client.job(type(self._job), self._job.id)
        except NotFound:
            self._not_found += 1
            if self._not_found >= _NOT_FOUND_LIMIT:
                raise ExecutionLost(
                    f"{named(self._job)}: the service does not know it any more; was it deleted? Then {self._remedy}",
                    self._tail,
                ) from None
            return
        except ValohaiError as error:
            self._bear(error)
            return
        self._answered, self._not_found = time.monotonic(), 0
        if now.state != self._job.state:
            self._pace.changed = time.monotonic()
            self._changed(now)
        if not now.waiting and self._started is None:
            self._started = time.monotonic() - (now.duration or 0.0)
        self._job = now

    def _bear(self, error: ValohaiError) -> None:
        """Go on in spite of an error that may pass, for a while."""
        silent = time.monotonic() - self._answered
        if not (passing(error) or doubtful(error)) or silent > self._limits.silence:
            raise error
        asked = error.retry_after if isinstance(error, Refused) else None
        if not self._stopping:
            self._sleep(min(asked or 0.0, 60.0))

    def _check_limits(self) -> None:
        if self._stopping or self._job.final:
            return
        queue, run = self._limits.queue, self._limits.run
        if self._job.waiting:
            if queue is not None and self._waited() > queue:
                self._exceeded = f"did not start within {queue:g} s; choose another environment or a longer limit"
        elif run is not None and self._started is not None and time.monotonic() - self._started > run:
            self._exceeded = f"did not end within {run:g} s; raise the limit or make it do less"
        if self._exceeded:
            self._end()

    def _waited(self) -> float:
        """Seconds since it was created, by the service's clock: another process may have begun to follow it."""
        try:
            created = datetime.fromisoformat(_with_whole_fraction(self._job.ctime))
        except ValueError:
            return time.monotonic() - self._pace.began
        if created.tzinfo is None:
            created = created.replace(tzinfo=timezone.utc)
        return (self._client.now() - created).total_seconds()

    def _end(self) -> None:
        """Stop the execution; a later round tries again if the service does not take the request now."""
        self._stopping = True
        try:
            request_stop(self._client, self._job)
        except ValohaiError as error:
            self._bear(error)
            self._stopping = False

    def _outcome(self) -> J:
        job = self._job
        if job.status == "complete":
            return job
        if self._exceeded:
            raise LimitExceeded(f"{named(job)} {self._exceeded}", self._tail)
        if job.status == "stopped":
            by = "on request" if self._stopping else "by somebody else"
            raise ExecutionStopped(f"{named(job)} was stopped {by}; {self._remedy} to go on", self._tail)
        raise self._failure()


def named(job: Job) -> str:
    """A job as an error calls it, with its step and page."""
    step = f" of step {job.step!r}" if isinstance(job, Execution) and job.step else ""
    title = f" {job.title!r}" if job.title and not step else ""
    return f"{job.label}{step}{title}{f' ({job.page})' if job.page else ''}"


def _with_whole_fraction(text: str) -> str:
    """An ISO time as Python 3.10 reads it: six digits after the point, an offset for ``Z``."""
    text = text.replace("Z", "+00:00")
    head, point, rest = text.partition(".")
    if not point:
        return text
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    return f"{head}.{digits[:6]:0<6}{rest[len(digits) :]}"
