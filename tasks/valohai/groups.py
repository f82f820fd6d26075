"""A pipeline or a task: what is asked of the service, and how it is followed with the log of every execution in it."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from tasks.valohai.client import Client
from tasks.valohai.errors import ExecutionFailed, ValohaiError
from tasks.valohai.following import ExecutionLog, Receivers
from tasks.valohai.polling import Following, named
from tasks.valohai.records import Execution, Pipeline, Task

Group = TypeVar("Group", bound=Pipeline | Task)


@dataclass(frozen=True)
class GroupRequest(Generic[Group]):
    """What is asked of the service; ``pipelines`` and ``sweeps`` make it.

    Attributes:
        kind: a pipeline or a task.
        title: shown in lists.
        content: what runs, as the service takes it.
        tags: besides that of its key.
        filters: none; the service does not tell how its lists of pipelines and tasks can be filtered.
    """

    kind: type[Group]
    title: str
    content: Mapping[str, Any]
    tags: Sequence[str] = ()
    filters: Mapping[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """SHA-256 of all that is asked for: code, parameters, inputs, machines."""
        return hashlib.sha256(json.dumps(self.content, sort_keys=True).encode()).hexdigest()

    def payload(self, project_id: str, key_tag: str) -> dict[str, Any]:
        """The body of the request."""
        return {"project": project_id, "title": self.title, "tags": [key_tag, *self.tags], **self.content}


@dataclass(frozen=True)
class Child:
    """An execution of a group.

    Attributes:
        name: its node's; with its number where a task runs several.
        execution: as it was last seen.
    """

    name: str
    execution: Execution


def children(client: Client, group: Pipeline | Task) -> list[Child]:
    """The executions that a group has started so far.

    Raises:
        ValohaiError: when those of a task cannot be listed.
    """
    if isinstance(group, Task):
        return [Child(execution.label, execution) for execution in _of_task(client, group)]
    found = []
    for node in group.nodes:
        if node.execution is not None:
            found.append(Child(node.name, node.execution))
        elif node.task is not None:
            found += [Child(f"{node.name} #{one.counter}", one) for one in _of_task(client, node.task)]
    return found


def _of_task(client: Client, task: Task) -> list[Execution]:
    return sorted(client.jobs(Execution, task=task.id), key=lambda execution: execution.counter or 0)


def follow_group(
    client: Client,
    group: Group,
    receivers: Callable[[Child], Receivers],
    *,
    changed: Callable[[Group], None],
    stop: Callable[[], bool] | None = None,
) -> Group:
    """Follow a pipeline or a task to its end.

    Args:
        client: of the project.
        group: which.
        receivers: asked once for each execution: who is told what of it.
        changed: told the group at first, and whenever its status or that of a node has changed.
        stop: asked again and again; once true, the group is stopped.

    Returns:
        The complete group.

    Raises:
        ExecutionFailed: with the last lines of the execution that failed.
        ExecutionStopped: if it was stopped, by ``stop`` or by others.
        ExecutionLost: if the service does not know it any more.
        ValohaiError: if the service cannot be asked any more; the group is left as it is.
    """
    return _GroupFollowing(client, group, receivers, changed, stop).run()


class _Followed:
    """An execution of the group, its log, and what was told of it."""

    def __init__(self, client: Client, child: Child, receivers: Receivers) -> None:
        self.child, self.receivers = child, receivers
        self.log = ExecutionLog(client, receivers)
        self.read = False
        receivers.status(child.execution)

    def update(self, child: Child) -> bool:
        """Take its newer state; returns whether its status has changed."""
        changed = child.execution.status != self.child.execution.status
        self.child = child
        if changed:
            self.receivers.status(child.execution)
        return changed


class _GroupFollowing(Following[Group]):
    _remedy = "run the same command again"

    def __init__(
        self,
        client: Client,
        group: Group,
        receivers: Callable[[Child], Receivers],
        changed: Callable[[Group], None],
        stop: Callable[[], bool] | None,
    ) -> None:
        super().__init__(client, group, changed, stop=stop)
        self._receivers = receivers
        self._followed: dict[str, _Followed] = {}

    def _read(self) -> None:
        with self._client.patient(5.0):
            self._update()
        running = sum(not item.child.execution.final for item in self._followed.values())
        for item in self._followed.values():
            execution = item.child.execution
            if not execution.final:
                item.log.read(execution, self._pace, running)
            elif not item.read:
                self._pace.requests += 1
                with self._client.patient(5.0):
                    item.read = item.log.read_to_its_end(execution)

    def _update(self) -> None:
        """Look which executions there are; a task's have to be asked for."""
        if isinstance(self._job, Task) or any(node.task is not None for node in self._job.nodes):
            self._pace.requests += 1
        try:
            found = children(self._client, self._job)
        except ValohaiError as error:
            self._bear(error)
            return
        for child in found:
            known = self._followed.get(child.execution.id)
            if known is None:
                self._followed[child.execution.id] = _Followed(self._client, child, self._receivers(child))
            if known is None or known.update(child):
                self._pace.changed = time.monotonic()

    def _read_to_the_end(self) -> None:
        self._update()
        for item in self._followed.values():
            if not item.read:
                item.read = item.log.read_to_its_end(item.child.execution)

    @property
    def _failed(self) -> _Followed | None:
        """The execution that brought the group down."""
        followed = self._followed.values()
        return next((item for item in followed if item.child.execution.status in ("error", "crashed")), None)

    @property
    def _tail(self) -> Sequence[str]:
        return self._failed.log.tail if self._failed is not None else ()

    def _failure(self) -> ExecutionFailed:
        what = f"{named(self._job)} ended with status {self._job.status}"
        failed = self._failed
        if failed is None:
            return ExecutionFailed(f"{what}: {_remark(self._job) or 'see its page for the reason'}")
        execution = failed.child.execution
        where = execution.label if failed.child.name == execution.label else f"{failed.child.name} ({execution.label})"
        reason = f": {failed.log.reason}" if failed.log.reason else ""
        return ExecutionFailed(f"{what} because of {where}{reason}; last lines:", self._tail)


def _remark(group: Pipeline | Task) -> str:
    """What the service says about a failure."""
    if isinstance(group, Task):
        return group.status_detail
    failed = [node for node in group.nodes if node.status == "error" and node.log]
    return f"node {failed[0].name}: {failed[0].log[0].message}" if failed else ""
