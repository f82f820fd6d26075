"""A stage as a Valohai execution: submitted once for its key, followed, stopped or left alone; its output adopted."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, TextIO

from valohai_yaml.objs import Step

from tasks.call import StageCall
from tasks.store import Entry
from tasks.valohai.client import Client
from tasks.valohai.copy import ExecutionCopy, OtherCode, adopt, known_copy
from tasks.valohai.environments import find_environment
from tasks.valohai.errors import ExecutionFailed, ValohaiError
from tasks.valohai.events import LogFile
from tasks.valohai.execution import find, jobs_of, just_submitted, stop, submit_once
from tasks.valohai.following import Receivers, follow
from tasks.valohai.layout import CODE, EARLIER_CHECKPOINTS, LAYOUTS
from tasks.valohai.outputs import list_outputs
from tasks.valohai.package import ensure_commit
from tasks.valohai.polling import Limits
from tasks.valohai.records import Execution
from tasks.valohai.step import ExecutionRequest, read_step, request_for

_SEALED = re.compile(r"checkpoint-(\d+)\.tar")
# Unfinished attempts whose checkpoints are looked at, the newest first.
_ATTEMPTS = 10
# Seconds to wait for the end of an execution that was told to stop: Prefect's worker allows a cancelled run 15.
_STOP_WAIT = 10.0


@dataclass(frozen=True)
class Options:
    """How stages run as executions.

    Attributes:
        commit: a git commit that the project knows; None: the code of this folder is handed over.
        limits: how long an execution may wait and run.
        tags: besides the stage's key.
    """

    commit: str | None = None
    limits: Limits = field(default_factory=Limits)
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listeners:
    """Who is told what while a stage runs as an execution.

    Attributes:
        open: makes the receiver of the log's lines (stream, text) that also writes them to the file it is given.
        submitted: called with the execution, and whether it was there already, before it is followed.
        notice: what a person should know about the following itself.
        ends: asked, when the following is broken off by an exception, whether the execution is to be stopped.
    """

    open: Callable[[TextIO], Callable[[Any, str], None]]
    submitted: Callable[[Execution, bool], None]
    notice: Callable[[str], None]
    ends: Callable[[BaseException], bool]


class Runner:
    """Runs stages as executions of one project.

    Args:
        client: of the project.
        options: how.
    """

    def __init__(self, client: Client, options: Options) -> None:
        self.client, self._options = client, options

    @cached_property
    def _commit(self) -> str:
        """The code, handed over when the first execution needs it."""
        return ensure_commit(self.client, CODE, commit=self._options.commit).identifier

    def known_copy(self, entry: Entry) -> ExecutionCopy | None:
        """What the store knows of an execution of this project that made the entry."""
        return known_copy(self.client, entry)

    def run(
        self,
        call: StageCall,
        entry: Entry,
        listeners: Listeners,
        *,
        environment: str | None = None,
        earlier: Callable[[], list[str]] = list,
    ) -> ExecutionCopy:
        """Run a stage: follow the execution of its key that waits, runs or is complete, else a new one.

        Args:
            call: what to do.
            entry: its place in the store; gets the log.
            listeners: who is told what.
            environment: machine type, as slug or name; None: the step's, or the project's.
            earlier: addresses of checkpoints to go on from where no attempt of this key has left any.

        Raises:
            ValohaiError: with the execution's, or the service's, own reason.
        """
        key, gone = entry.identity.key, set[str]()
        while True:
            execution = None
            try:
                execution, found = self._submit(call, key, gone, environment, earlier)
                listeners.submitted(execution, found)
                complete = self._follow(execution, entry, listeners)
            except BaseException as error:
                if listeners.ends(error):
                    self._stop(call, key, execution, listeners)
                raise
            problem = f"outputs of {complete.label} are gone"
            try:
                copy = adopt(self.client, entry, complete)
            except OtherCode as error:
                if not found:
                    raise
                copy, problem = None, str(error)
            if copy is not None:
                return copy
            if not found:
                raise ExecutionFailed(f"{complete.label} is complete but left not all of its outputs; see its page")
            listeners.notice(f"{problem}; {call.stage} runs again")
            gone.add(complete.id)

    def _submit(
        self,
        call: StageCall,
        key: str,
        gone: Collection[str],
        environment: str | None,
        earlier: Callable[[], list[str]],
    ) -> tuple[Execution, bool]:
        step = read_step(CODE / "valohai.yaml", LAYOUTS[call.stage].step)
        machine = find_environment(self.client, environment).id if environment else None
        # One that is there needs no inputs any more, so they are not looked for.
        there = find(self.client, key, step=step.name, ignore=gone)
        if there:
            return there[0], True
        request = self._request(call, step, self._inputs(call, step, key, earlier))
        submission = submit_once(self.client, key, replace(request, environment=machine), ignore=gone)
        return submission.job, submission.found

    def _inputs(self, call: StageCall, step: Step, key: str, earlier: Callable[[], list[str]]) -> dict[str, list[str]]:
        names = LAYOUTS[call.stage].inputs
        links: dict[str, list[str]] = {name: [] for name in step.inputs}
        links.update({names[flag]: source.addresses() for flag, source in call.inputs.items()})
        if call.stage == "train":
            links[EARLIER_CHECKPOINTS] = newest_sealed(self.client, key, step.name) or earlier()
        return links

    def _request(self, call: StageCall, step: Step, inputs: Mapping[str, list[str]]) -> ExecutionRequest:
        request = request_for(step, self._commit, step_parameters(call, step), inputs)
        return replace(request, title=f"deeplab {call.stage}", tags=self._options.tags)

    def _follow(self, execution: Execution, entry: Entry, listeners: Listeners) -> Execution:
        with LogFile(entry.log, execution.id) as log:
            if log.cursor.delivered:
                listeners.notice(f"re-attached to {execution.label} at line {log.cursor.delivered + 1} of its log")
            receive = listeners.open(log.file)
            receivers = Receivers(
                event=lambda event: receive(event.stream, event.message),
                status=lambda now: listeners.notice(f"{now.label} is {now.status}"),
                saved=log.save,
                notice=listeners.notice,
            )
            return follow(self.client, execution, receivers, cursor=log.cursor, limits=self._options.limits)

    def _stop(self, call: StageCall, key: str, execution: Execution | None, listeners: Listeners) -> None:
        """Stop an execution, or what was being submitted when nobody had an answer yet."""
        step = {"step": LAYOUTS[call.stage].step}
        try:
            for running in [execution] if execution else just_submitted(self.client, key, Execution, step):
                listeners.notice(f"stopping {running.label}")
                last = stop(self.client, running, timeout=_STOP_WAIT)
                state = last.status if last.final else "told to stop, and not at its end yet"
                listeners.notice(f"{running.label} is {state}")
        except ValohaiError as error:
            name = execution.label if execution else f"an execution of {call.stage}"
            listeners.notice(f"{name} may still run: {error}")


def step_parameters(call: StageCall, step: Step) -> dict[str, Any]:
    """Every parameter of a step with the value that it has where the stage runs here.

    The step's own defaults are for people who start it by hand. Where one would stand for "not given", an empty text
    says so.
    """
    config = call.config()
    values: dict[str, Any] = {}
    for name, parameter in step.parameters.items():
        value = getattr(config, name)
        if value is None or value == ():
            value = None if parameter.default is None else ""
        values[name] = value
    return values


def newest_sealed(client: Client, key: str, step: str) -> list[str]:
    """The address of the newest checkpoint that unfinished attempts of a training have left, if any has."""
    attempts = [row for row in jobs_of(client, key, Execution, {"step": step}) if not row.blocks]
    sealed: dict[int, str] = {}
    for attempt in attempts[:_ATTEMPTS]:
        for name, datum in list_outputs(client, attempt.id).items():
            found = _SEALED.fullmatch(name)
            if found:
                sealed.setdefault(int(found[1]), datum.link)
    return [sealed[max(sealed)]] if sealed else []
