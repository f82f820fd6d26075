"""A pipeline or a sweep on Valohai as part of a Prefect run: handed over, shown, followed, and stopped with the run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.exceptions import TerminationSignal
from prefect.logging import get_run_logger
from valohai_yaml.objs import Config

from tasks.artifacts import publish_link
from tasks.cancellation import stop_is_wanted
from tasks.stage_output import Logger
from tasks.valohai.client import Client
from tasks.valohai.environments import find_environment
from tasks.valohai.errors import ValohaiError
from tasks.valohai.execution import jobs_of, just_submitted, stop, submit_once
from tasks.valohai.following import Receivers
from tasks.valohai.groups import Child, Group, GroupRequest, children, follow_group
from tasks.valohai.package import ensure_commit
from tasks.valohai.records import Event, Pipeline, Task
from tasks.valohai.step import read_config

# Seconds that an interrupted run waits for the end: Prefect's worker ends it after 15 s, a person is less patient.
_STOP_TIMEOUT = 12.0


@dataclass(frozen=True)
class Code:
    """What runs, and on which machines.

    Attributes:
        folder: of the code and its ``valohai.yaml``.
        commit: a git commit that the project can fetch; None: the files of the folder.
        environment: slug, name or id; None: as the steps or the project say.
    """

    folder: Path
    commit: str | None = None
    environment: str | None = None


def hand_over(
    client: Client, code: Code, request: Callable[[Config, str, str | None], GroupRequest[Group]]
) -> GroupRequest[Group]:
    """A request whose code the project has.

    Args:
        client: of the project.
        code: what runs.
        request: makes it of the yaml's content, the commit's identifier and the environment's id.

    Raises:
        ValohaiError: for what cannot be asked for; nothing was sent then.
    """
    config = read_config(code.folder / "valohai.yaml")
    environment = find_environment(client, code.environment).id if code.environment else None
    request(config, "-", environment)  # a mistake is told before anything is sent
    commit = ensure_commit(client, code.folder, commit=code.commit, warn=get_run_logger().warning)
    return request(config, commit.identifier, environment)


def run_group(client: Client, request: GroupRequest[Group], *, repeat: bool = False) -> Group:
    """Run a pipeline or a task on Valohai; one that is there for the same request is followed, or its result used.

    Args:
        client: of the project.
        request: what to run.
        repeat: run it once more although it is complete.

    Raises:
        ValohaiError: with the reason for which it did not end well.
    """
    there = jobs_of(client, request.key, request.kind, request.filters) if repeat else ()
    ignore = [job.id for job in there if job.status == "complete"]
    try:
        submission = submit_once(client, request.key, request, ignore=ignore)
    except (KeyboardInterrupt, TerminationSignal) as interruption:
        _leave_submitted(client, request, wanted=stop_is_wanted(interruption))
        raise
    return _follow(client, submission.job, submission.found)


def _leave_submitted(client: Client, request: GroupRequest[Group], *, wanted: bool) -> None:
    """The same as ``_leave``, for what was being submitted when nobody had an answer yet."""
    logger = get_run_logger()
    try:
        running = just_submitted(client, request.key, request.kind, request.filters)
    except ValohaiError as error:
        logger.error("what was being submitted may run: %s", error)
        return
    for job in running:
        _leave(client, job, logger, wanted=wanted)


def _follow(client: Client, group: Group, found: bool) -> Group:
    logger = get_run_logger()
    where = f" ({group.page})" if group.page else ""
    if group.page:
        publish_link(f"valohai-{group.noun}", group.page, f"{group.label} {group.title}".strip())
    if group.status == "complete":
        logger.info("%s%s is complete already", group.label, where)
        return group
    logger.info("%s%s %s", group.label, where, "is there already and is followed" if found else "was submitted")
    reporter = _Reporter(logger)
    try:
        return follow_group(client, group, reporter.receivers, changed=reporter.changed)
    except (KeyboardInterrupt, TerminationSignal) as interruption:
        _leave(client, group, logger, wanted=stop_is_wanted(interruption))
        raise


def _leave(client: Client, group: Pipeline | Task, logger: Logger, *, wanted: bool) -> None:
    """Stop what runs if that is wanted; say what becomes of it."""
    if not wanted:
        logger.warning("%s goes on; the same run follows it again", group.label)
        return
    logger.warning("stopping %s", group.label)
    try:
        status = stop(client, group, timeout=_STOP_TIMEOUT).status
    except ValohaiError as error:
        logger.error("%s may still run: %s", group.label, error)
        return
    logger.warning("%s is %s", group.label, status)


class _Reporter:
    """Tells the run's log what happens."""

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self._told: dict[str, str] = {}

    def changed(self, group: Pipeline | Task) -> None:
        """Tell the statuses that are new."""
        self._tell(group.label, group.status)
        for node in group.nodes if isinstance(group, Pipeline) else ():
            job = node.execution or node.task
            self._tell(node.name, node.status if job is None else f"{node.status} as {job.label}")

    def receivers(self, child: Child) -> Receivers:
        """Who is told of an execution."""

        def event(event: Event) -> None:
            self._logger.info("%s | %s", child.name, event.message)

        return Receivers(
            event=event,
            status=lambda execution: self._tell(execution.label, execution.status),
            notice=self._logger.warning,
        )

    def _tell(self, name: str, status: str) -> None:
        if self._told.get(name) != status:
            self._told[name] = status
            self._logger.info("%s: %s", name, status)


def output_rows(client: Client, pipeline: Pipeline) -> list[dict[str, Any]]:
    """A row for each file that a pipeline has made: node, execution, file, bytes and its address as an input."""
    return [
        {"node": child.name, "execution": child.execution.counter, "output": datum.name, "bytes": datum.size,
         "address": datum.link}
        for child in children(client, pipeline)
        for datum in sorted(client.outputs(child.execution.id), key=lambda datum: datum.name)
    ]  # fmt: skip
