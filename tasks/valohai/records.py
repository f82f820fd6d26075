"""What the API answers with, as frozen records; fields that nobody here reads are left out."""

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

# Statuses after which nothing changes. An unknown status is not among them, so it counts as unfinished.
FINAL = frozenset({"complete", "error", "crashed", "stopped"})
WAITING = frozenset({"created", "queued"})
# Statuses of a job that does not keep another one with its key from being made.
_MAKES_ROOM = frozenset({"error", "crashed", "stopped", "stopping", "stopping_hard"})


class Record(BaseModel):
    """An object of the API: null counts as not given, other fields are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore", coerce_numbers_to_str=True)

    @model_validator(mode="before")
    @classmethod
    def _without_null(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            return {name: value for name, value in values.items() if value is not None}
        return values


class Project(Record):
    """A project."""

    id: str
    name: str = ""
    yaml_path: str = "valohai.yaml"


class Commit(Record):
    """A version of the code: of git, or an ad-hoc package (``~`` and the SHA-256 of its bytes)."""

    identifier: str
    adhoc: bool = False
    commit_time: str = ""
    project_id: str | None = None


class Environment(Record):
    """A machine type, and the queue for it."""

    id: str
    name: str = ""
    slug: str = ""
    enabled: bool = True


class Job(Record):
    """What runs and ends: an execution, a pipeline or a task.

    Attributes:
        id: its UUID.
        counter: its number in the project, counted for each kind.
        status: see ``FINAL``, ``WAITING``; ``started``, ``stopping``, or a word not known today.
        ctime: when it was created, in ISO 8601.
        duration: seconds it has run; None before it starts, and for a group.
        urls: of its page (``display``) and of what can be done with it.
    """

    # In the API's paths, in front of the number, and in sentences.
    collection: ClassVar[str]
    sign: ClassVar[str]
    noun: ClassVar[str]

    id: str
    counter: int | None = None
    status: str = "created"
    title: str = ""
    tags: tuple[str, ...] = ()
    ctime: str = ""
    duration: float | None = None
    url: str | None = None
    urls: dict[str, str | None] = Field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status in FINAL

    @property
    def waiting(self) -> bool:
        """Whether it has not begun."""
        return self.status in WAITING

    @property
    def blocks(self) -> bool:
        """Whether it keeps another job with its key from being made: it will end well, or has."""
        return self.status not in _MAKES_ROOM

    @property
    def state(self) -> tuple[str, ...]:
        """What there is to tell when it changes."""
        return (self.status,)

    @property
    def label(self) -> str:
        """How a person calls it."""
        return f"{self.noun} {self.sign}{self.counter}" if self.counter is not None else f"{self.noun} {self.id}"

    @property
    def page(self) -> str | None:
        """Its page in the browser."""
        return self.urls.get("display")


class Execution(Job):
    """One run of a step.

    Attributes:
        parameters: name -> value.
        cumulative_metadata: name -> its last value.
    """

    collection: ClassVar[str] = "executions"
    sign: ClassVar[str] = "#"
    noun: ClassVar[str] = "execution"

    step: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    cumulative_metadata: dict[str, Any] = Field(default_factory=dict)


class Task(Job):
    """Executions of one step over variants of its parameters.

    Attributes:
        status_detail: why it ended so, if the service tells.
    """

    collection: ClassVar[str] = "tasks"
    sign: ClassVar[str] = "!"
    noun: ClassVar[str] = "task"

    status_detail: str = ""


class LogEntry(Record):
    """What the service notes about a pipeline."""

    message: str = ""


class Node(Record):
    """A node of a pipeline.

    Attributes:
        execution: what it runs, once it has started.
        task: the same for a node that is a task.
        log: what the service notes about it, newest first.
    """

    id: str
    name: str
    status: str = "created"
    execution: Execution | None = None
    task: Task | None = None
    log: tuple[LogEntry, ...] = ()


class Pipeline(Job):
    """A graph of executions and tasks."""

    collection: ClassVar[str] = "pipelines"
    sign: ClassVar[str] = "="
    noun: ClassVar[str] = "pipeline"

    nodes: tuple[Node, ...] = ()

    @property
    def state(self) -> tuple[str, ...]:
        """Its status and those of its nodes."""
        return (self.status, *(node.status for node in self.nodes))


class Event(Record):
    """One line of an execution's log.

    Attributes:
        time: in ISO 8601, UTC, without zone.
        stream: ``stdout``, ``stderr``, or ``status`` for the platform's own lines.
        message: without its line end.
    """

    time: str
    stream: str = "stdout"
    message: str = ""


class EventPage(Record):
    """The newest lines of a log, in time order.

    Attributes:
        total: how many lines the log has, where the server says so.
        truncated: whether it has more than were asked for.
    """

    events: tuple[Event, ...] = ()
    total: int | None = None
    truncated: bool = False


class Datum(Record):
    """One stored file.

    Attributes:
        name: may hold folders, divided by ``/``.
        size: in bytes, where known.
        sha256: hexadecimal, where known.
        uri: where it lies in its store.
    """

    id: str
    name: str
    size: int | None = None
    sha256: str | None = None
    uri: str | None = None
    ctime: str = ""
    purged: bool = False

    @property
    def link(self) -> str:
        """Its address as the input of another execution."""
        return f"datum://{self.id}"
