"""Run one stage, here or as an execution, or reuse what it made: the part that all stage tasks share."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TextIO

from prefect.logging import get_run_logger

from deeplab.errors import DataError, DeepLabError
from tasks.artifacts import ProgressBar, publish_link
from tasks.call import OUTPUTS, Source, StageCall
from tasks.cancellation import stop_is_wanted
from tasks.difference import why_new
from tasks.errors import StageFailed, StoreError
from tasks.gpu import one_training
from tasks.mirror import Mirror, MirrorCopy
from tasks.result import Copy, StageResult, shown
from tasks.runner import local
from tasks.sources import Address, Fetched, UserFiles
from tasks.stage_output import Logger, StageOutput, Watcher, opened_log
from tasks.store import NOT_MADE, Entry, Identity, Store

if TYPE_CHECKING:  # with all that it needs it takes a fifth of a second, which runs without Valohai do not pay
    from tasks.valohai.records import Execution
    from tasks.valohai.runner import Listeners, Runner


@dataclass(frozen=True)
class Site:
    """Where a stage runs, and where its output goes.

    Attributes:
        store: the folder of outputs here.
        mirror: the store's remote place, if it has one.
        service: finds and runs executions; None where Valohai is not configured.
        remote: whether the stage runs as an execution.
        environment: machine type of the execution; None: the step's, or the project's.
    """

    store: Store
    mirror: Mirror | None = None
    service: "Runner | None" = None
    remote: bool = False
    environment: str | None = None


@dataclass(frozen=True)
class Start:
    """What happens before a stage runs, other than reuse.

    Attributes:
        here: called with the entry where the stage runs here.
        remote: gives addresses of checkpoints that an execution goes on from.
    """

    here: Callable[[Entry], None]
    remote: Callable[[Entry], list[str]] = lambda entry: []


def run_stage(
    site: Site, call: StageCall, *, watchers: Sequence[Watcher] = (), start: Start | None = None
) -> StageResult:
    """Reuse a stage's output if it is there and whole, else run the stage.

    Args:
        site: where it runs, and where outputs live.
        call: what to do.
        watchers: receivers of progress and metrics while the stage runs.
        start: what it begins with; not asked when its output is reused.

    Raises:
        ConfigError: for values that the stage would refuse.
        StageFailed: with the stage's own reason.
        ValohaiError: with the execution's or the service's.
    """
    logger = get_run_logger()
    entry = site.store.entry(call.identity(), OUTPUTS[call.stage][1])
    with entry.held(lambda: logger.info("%s: waiting for another run that works on it", shown(entry.folder))):
        found, reason = _find(site, entry)
        if found is not None:
            _note_use(found)
            logger.info("reused %s", found.place)
            return found
        if reason == NOT_MADE:
            reason = why_new(site.store, entry.identity) or NOT_MADE
        logger.info("%s runs because %s: %s", call.stage, reason, shown(entry.output))
        entry.prepare()
        started = time.monotonic()
        if site.remote:
            result = _run_there(site, call, entry, watchers, start)
        else:
            result = _run_here(site, call, entry, watchers, start)
        logger.info("%s took %.1f s", call.stage, time.monotonic() - started)
        return result


def _find(site: Site, entry: Entry) -> tuple[StageResult | None, str | None]:
    """A finished and whole entry, wherever it is, else why there is none."""
    manifest, reason = entry.examine()
    copies = _copies(site, entry)
    if manifest is None:
        for copy in copies:
            try:
                damage = copy.damage()
            except DeepLabError as error:
                damage = f"{copy.place} cannot be looked at ({error})"
            if damage is None:
                return StageResult(entry, copy.manifest, True, copies), None
            reason = damage
        return None, reason
    # Who trains the same elsewhere gets other weights: what was made here is not to be taken for that.
    copies = tuple(copy for copy in copies if copy.manifest.digest == manifest.digest)
    if site.mirror is not None and not any(isinstance(copy, MirrorCopy) and not copy.damage() for copy in copies):
        others = (copy for copy in copies if not isinstance(copy, MirrorCopy))
        copies = (*others, site.mirror.push(entry, manifest))
    return StageResult(entry, manifest, True, copies), None


def _note_use(found: StageResult) -> None:
    """Whoever clears the store up wants to know what is still used, wherever it lies."""
    found.entry.touch()
    for copy in found.copies:
        if isinstance(copy, MirrorCopy):
            copy.touch()


def look_up(site: Site, call: StageCall) -> StageResult | None:
    """What a stage made, if it is there and whole; nothing runs."""
    found, _ = _find(site, site.store.entry(call.identity(), OUTPUTS[call.stage][1]))
    if found is not None:
        _note_use(found)
    return found


def finished(site: Site, stage: str, serves: Callable[[Identity], bool]) -> Iterator[StageResult]:
    """Finished and whole outputs of a stage whose identity serves."""
    for entry in site.store.entries(stage, OUTPUTS[stage][1]):
        if serves(entry.identity):
            found, _ = _find(site, entry)
            if found is not None:
                yield found


def packed_there(site: Site, call: StageCall, training: StageResult) -> StageResult | None:
    """The archive that the execution of a training made itself, if one trained."""
    if site.service is None:
        return None
    from tasks.valohai.copy import ExecutionCopy

    trained = next((copy for copy in training.copies if isinstance(copy, ExecutionCopy)), None)
    if trained is None:
        return None
    entry = site.store.entry(call.identity(), OUTPUTS[call.stage][1])
    with entry.held(lambda: None):
        found, _ = _find(site, entry)
        if found is not None:
            _note_use(found)
        else:
            copy = trained.sibling(entry)
            found = StageResult(entry, copy.manifest, training.reused, (copy,)) if copy else None
    return found


def _copies(site: Site, entry: Entry) -> tuple[Copy, ...]:
    there = site.service.known_copy(entry) if site.service else None
    mirrored = site.mirror.find(entry) if site.mirror else None
    return tuple(copy for copy in (there, mirrored) if copy is not None)


def _run_here(
    site: Site, call: StageCall, entry: Entry, watchers: Sequence[Watcher], start: Start | None
) -> StageResult:
    if start is not None:
        start.here(entry)
    command = _with_files(site, call).command(entry.output)
    turn = one_training() if call.stage == "train" else nullcontext()
    with turn, opened_log(entry.log) as log:
        _check_own_files(call)  # it may have waited for hours
        output = StageOutput(log, get_run_logger(), watchers)
        status = local.run(command, output.receive)
    if status != 0:
        raise StageFailed(f"{call.stage}: {_reason(call.stage, status, output.last_line)} (log: {shown(entry.log)})")
    try:
        _check_own_files(call)
    except DataError:
        entry.invalidate()
        raise
    manifest, reason = entry.examine()
    if manifest is None:
        raise StageFailed(
            f"{call.stage}: ended well but {reason} (log: {shown(entry.log)}); run the same command again"
        )
    return StageResult(entry, manifest, False, (site.mirror.push(entry, manifest),) if site.mirror else ())


def _check_own_files(call: StageCall) -> None:
    """See that a person's files are what the key stands for."""
    for source in call.inputs.values():
        if isinstance(source, UserFiles):
            source.check()


def _with_files(site: Site, call: StageCall) -> StageCall:
    """The call with fetched files in place of addresses, which no other stage opens."""
    if call.stage == "fetch":
        return call
    return replace(call, inputs={name: _brought(site, source) for name, source in call.inputs.items()})


def _brought(site: Site, source: Source) -> Source:
    if not isinstance(source, Address):
        return source
    if source.url.startswith("datum://"):
        raise StoreError(f"{source.url}: only an execution can read it; let the stage run there")
    fetch = StageCall("fetch", source.flags, inputs={"source": source})
    return Fetched(run_stage(replace(site, remote=False), fetch, watchers=[ProgressBar("fetch")]), source.url)


def _reason(stage: str, status: int, last_line: str) -> str:
    if status == 143:
        return "was told to stop; the same command goes on from there"
    if status == -9:
        return "was killed, usually because memory ran out; try a smaller batch or crop"
    if status < 0:
        return f"ended by signal {-status}"
    return last_line.removeprefix(f"deeplab {stage}: ") or f"ended with status {status}"


def _run_there(
    site: Site, call: StageCall, entry: Entry, watchers: Sequence[Watcher], start: Start | None
) -> StageResult:
    assert site.service is not None
    copy = site.service.run(
        call,
        entry,
        _listeners(call.stage, get_run_logger(), watchers),
        environment=site.environment,
        earlier=partial(start.remote, entry) if start else list,
    )
    return StageResult(entry, copy.manifest, False, (copy,))


def _listeners(stage: str, logger: Logger, watchers: Sequence[Watcher]) -> "Listeners":
    from tasks.valohai.runner import Listeners

    def submitted(execution: "Execution", found: bool) -> None:
        where = f": {execution.page}" if execution.page else ""
        logger.info("%s %s%s", "found" if found else "submitted", execution.label, where)
        if execution.page:
            publish_link(f"{stage}-execution", execution.page, f"{stage} as {execution.label}")

    def open_log(file: TextIO) -> Callable[[Any, str], None]:
        return StageOutput(file, logger, watchers).receive

    return Listeners(open_log, submitted, lambda text: logger.info("%s", text), stop_is_wanted)
