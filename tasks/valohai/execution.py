"""One execution (or pipeline, or task) for one key: find it, submit it once, stop it."""

import os
import time
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from filelock import FileLock, Timeout

from tasks.valohai.client import Client, back_off, doubtful, passing
from tasks.valohai.errors import NotFound, Refused, ValohaiError
from tasks.valohai.records import Execution, Job

KEY_TAG = "deeplab-key:"
# Marks what one call of ``submit_once`` posted, whatever became of it.
_SUBMISSION_TAG = "deeplab-submission:"
# How far back the jobs of a key are looked for.
_LOOK_BACK = 1000
# Seconds after a doubtful POST at which to look whether it was done: a slow server may still be at it.
_LOOKS = (0.5, 1.5, 3.0)
_LOCK_TIMEOUT = 900.0
# A stop is asked for while a person, or Prefect's worker with its 15 s, waits.
_STOP_PATIENCE = 10.0
# Who was interrupted while submitting has these of them: seconds before each look, and for the service's answers.
_LATE_LOOKS, _LOOK_PATIENCE = (0.0, 1.0, 2.0), 3.0

J = TypeVar("J", bound=Job)
Made = TypeVar("Made", bound=Job, covariant=True)


class Request(Protocol[Made]):
    """What is asked of the service: an ``ExecutionRequest``, a ``PipelineRequest`` or a ``SweepRequest``."""

    @property
    def kind(self) -> type[Made]:
        """What it makes."""
        ...

    @property
    def filters(self) -> Mapping[str, str]:
        """What its job has in common with fewer others, as the service's lists take it."""
        ...

    def payload(self, project_id: str, key_tag: str) -> dict[str, Any]:
        """The body of the request, with the tag among its tags."""
        ...


def key_tag(key: str) -> str:
    """The tag by which the execution of a stage's key is found again."""
    return f"{KEY_TAG}{key}"


def find(client: Client, key: str, *, step: str | None = None, ignore: Collection[str] = ()) -> list[Execution]:
    """Executions with a key that keep another one from being made, oldest first.

    Args:
        client: of the project.
        key: of the stage.
        step: its step's exact name, if known: fewer rows have to be looked through.
        ignore: ids of executions that do not count, such as a complete one whose outputs are gone.
    """
    return _Search(client, Execution, {} if step is None else {"step": step}, key, ignore).blocking()


def jobs_of(client: Client, key: str, kind: type[J], filters: Mapping[str, str]) -> Iterator[J]:
    """Jobs of a key, whatever became of them; the newest first.

    Args:
        client: of the project.
        key: of the stage, or of the request.
        kind: of job.
        filters: what they have in common with fewer others, as the service's lists take it.
    """
    return (job for job in client.jobs(kind, limit=_LOOK_BACK, **filters) if key_tag(key) in job.tags)


def just_submitted(client: Client, key: str, kind: type[J], filters: Mapping[str, str]) -> list[J]:
    """Jobs of a key that wait or run, for whoever was interrupted while submitting one and has no answer yet.

    Takes some seconds where there is none: a slow server may still be at it. Arguments: see ``jobs_of``.

    Raises:
        ValohaiError: when the service does not answer.
    """
    with client.patient(_LOOK_PATIENCE):
        for seconds in _LATE_LOOKS:
            time.sleep(seconds)
            if running := [job for job in jobs_of(client, key, kind, filters) if job.blocks and not job.final]:
                return running
    return []


@dataclass(frozen=True)
class Submission(Generic[J]):
    """An execution, pipeline or task, and whether it was there already."""

    job: J
    found: bool


def submit_once(
    client: Client,
    key: str,
    request: Request[J],
    *,
    lock: Path | None = None,
    ignore: Collection[str] = (),
    patience: float = 300.0,
) -> Submission[J]:
    """The job of a key: the one that waits, runs or is complete, else a new one.

    A POST without a whole answer is not repeated before a look whether it was done.

    Args:
        client: of the project.
        key: of the stage.
        request: what to run if there is none.
        lock: a file that keeps other processes of this machine from submitting the same key meanwhile.
        ignore: see ``find``.
        patience: seconds over which it is tried.

    Raises:
        ValohaiError: with the service's reason.
    """
    search = _Search(client, request.kind, request.filters, key, ignore)
    with _locked(lock or _lock_path(key)):
        return _submit(search, request, patience)


@dataclass(frozen=True)
class _Search(Generic[J]):
    """Where the job of a submission is looked for."""

    client: Client
    kind: type[J]
    filters: Mapping[str, str]
    key: str
    ignore: Collection[str]
    tag: str = field(default_factory=lambda: f"{_SUBMISSION_TAG}{uuid.uuid4().hex[:16]}")

    def blocking(self) -> list[J]:
        """Jobs of the key that keep another one from being made; oldest first."""
        rows = jobs_of(self.client, self.key, self.kind, self.filters)
        found = [row for row in rows if row.blocks and row.id not in self.ignore]
        return sorted(found, key=lambda row: row.counter or 0)

    def posted(self) -> list[J]:
        """What this submission has made, even if it has failed already; oldest first."""
        rows = self.client.jobs(self.kind, limit=200, **self.filters)
        return sorted((row for row in rows if self.tag in row.tags), key=lambda row: row.counter or 0)

    def posted_late(self) -> list[J]:
        """The same, waiting a little for a slow server."""
        for seconds in _LOOKS:
            time.sleep(seconds)
            if found := self.posted():
                return found
        return []


def _submit(search: _Search[J], request: Request[J], patience: float) -> Submission[J]:
    client, deadline = search.client, time.monotonic() + patience
    payload = request.payload(client.project.id, key_tag(search.key))
    payload["tags"].append(search.tag)
    attempt, in_doubt = 0, False
    while True:
        if in_doubt and (late := search.posted()):
            return Submission(_only(client, late), found=False)
        if found := search.blocking():
            return Submission(_only(client, found), found=True)
        try:
            created = client.create(search.kind, payload)
        except ValohaiError as error:
            attempt, wait = attempt + 1, back_off(attempt + 1, error)
            if not (passing(error) or doubtful(error)) or time.monotonic() + wait > deadline:
                raise
            if doubtful(error):
                in_doubt = True
                if late := search.posted_late():
                    return Submission(_only(client, late), found=False)
            time.sleep(wait)
            continue
        # An earlier POST may have been done after all, too late for the looks that followed it.
        others = search.posted() if in_doubt else []
        return Submission(_only(client, others) if others else created, found=False)


def _only(client: Client, found: list[J]) -> J:
    """The one that goes on: a complete one, else the oldest; the others are stopped."""
    kept = next((job for job in found if job.status == "complete"), found[0])
    for other in found:
        if other.id != kept.id and not other.final:
            request_stop(client, other)
    return kept


def _lock_path(key: str) -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return cache / "deeplab-prefect" / "valohai" / f"{key}.lock"


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=_LOCK_TIMEOUT):
            yield
    except Timeout:
        raise ValohaiError(f"{path}: another process has been submitting this stage for 15 minutes; stop it") from None


def request_stop(client: Client, job: Job) -> None:
    """Ask a job to stop; one that has ended, or is gone, is as good as stopped."""
    with client.patient(_STOP_PATIENCE):
        try:
            client.stop(job)
        except Refused as error:
            if error.status not in (400, 404):
                raise


def stop(client: Client, job: J, *, timeout: float = 20.0) -> J:
    """Stop an execution, pipeline or task, and wait for its end.

    Args:
        client: of the project.
        job: which.
        timeout: seconds to wait.

    Returns:
        The job as it was last seen; not ``final`` if it takes longer.

    Raises:
        ValohaiError: when the service does not take the request.
    """
    deadline = time.monotonic() + timeout
    request_stop(client, job)
    while not job.final and time.monotonic() < deadline:
        time.sleep(min(1.0, max(0.0, deadline - time.monotonic())))
        try:
            with client.patient(max(1.0, deadline - time.monotonic())):
                job = client.job(type(job), job.id)
        except NotFound:
            return job
    return job
