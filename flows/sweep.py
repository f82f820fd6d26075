"""Many trainings of the same thing with different values of some fields, compared in a table.

    python -m flows.sweep --base.preset=demo --vary.train.base_learning_rate=0.01,0.05 --concurrency=2

Each is found in the store if it is there: a sweep that was interrupted trains what is missing.
"""

import hashlib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefect import flow
from prefect.logging import get_run_logger

from deeplab.errors import DeepLabError
from flows import console
from flows.attempts import begin_attempt
from flows.children import Child, DeploymentChild, LocalChild
from flows.command_line import parse
from flows.parameters import TrainFlowParameters
from flows.sites import Sites
from flows.sweep_parameters import SweepParameters, labels
from flows.train import Trained, prepare
from tasks.archive import archive_call
from tasks.artifacts import percent, publish_table
from tasks.cancellation import stop_is_wanted
from tasks.chart import read_points
from tasks.evaluate import evaluate_call, read_scores
from tasks.result import StageResult
from tasks.sources import TrainedCheckpoint
from tasks.stage import look_up
from tasks.train import train_call

console.set_up_logging()

# Seconds between two looks at the trials that run, and between two at their losses.
_POLL, _COMPARE = 1.0, 10.0
# The loss at a step is the mean of so many points before it: single ones are noise.
_POINTS = 5


class SweepFailed(DeepLabError):
    """Some trainings of a sweep failed."""


@dataclass
class Trial:
    """One training of the sweep.

    Attributes:
        label: what it sets, in short.
        point: the same, by field.
        parameters: of its flow.
        state: ``waiting``, ``running``, ``done``, ``given up`` or ``failed``.
        reused: whether an earlier run had made it.
        reason: why it failed or was given up.
        result: what it came to, once it is done.
    """

    label: str
    point: dict[str, Any]
    parameters: TrainFlowParameters
    state: str = "waiting"
    reused: bool = False
    reason: str = ""
    result: Trained | None = None
    child: Child | None = field(default=None, repr=False)

    @property
    def miou(self) -> float | None:
        """Mean IoU 0..1."""
        if self.result is None:
            return None
        scores = read_scores(self.result.evaluation)
        return None if scores["miou"] is None else float(scores["miou"])


@flow(name="sweep", flow_run_name="{parameters.title}", persist_result=False)
def sweep_flow(parameters: SweepParameters) -> list[Trial]:
    """Train and measure several variants of the same thing, and compare them.

    Args:
        parameters: What they share, and what varies.
    """
    begin_attempt()
    points = parameters.points
    trials = [Trial(*made) for made in zip(labels(points), points, parameters.trials, strict=True)]
    with Sites.of(parameters.base) as at:
        _Sweep(parameters, at, trials).run()
    ranked = _ranked(trials)
    publish_table("sweep", [_row(trial, trial is ranked[0]) for trial in ranked], parameters.title)
    failed = [trial for trial in trials if trial.state == "failed"]
    if failed:
        raise SweepFailed(
            f"{len(failed)} of {len(trials)} trainings failed, the first ({failed[0].label}): {failed[0].reason}"
        )
    return ranked


class _Sweep:
    """Starts trials, follows them, and gives up the hopeless ones.

    Args:
        parameters: of the sweep.
        at: where stages run and outputs live.
        trials: what is to be trained.
    """

    def __init__(self, parameters: SweepParameters, at: Sites, trials: Sequence[Trial]) -> None:
        self._parameters, self._at, self._trials = parameters, at, trials
        self._logger = get_run_logger()
        self._shards: dict[str, StageResult] = {}

    def run(self) -> None:
        """Bring every trial to its end."""
        for trial in self._trials:
            self._collect(trial, reused=True)
        waiting = [trial for trial in self._trials if trial.state == "waiting"]
        self._logger.info("%d of %d trainings are there already", len(self._trials) - len(waiting), len(self._trials))
        compared = time.monotonic()
        try:
            while waiting or self._running():
                while waiting and len(self._running()) < self._parameters.concurrency:
                    self._start(waiting.pop(0))
                for trial in self._running():
                    self._follow(trial)
                if self._parameters.give_up_after and time.monotonic() - compared >= _COMPARE:
                    compared = time.monotonic()
                    self._give_up_hopeless()
                time.sleep(_POLL)
        except BaseException as error:
            self._stop(self._running(), wanted=stop_is_wanted(error))
            raise

    def _running(self) -> list[Trial]:
        return [trial for trial in self._trials if trial.state == "running"]

    def _start(self, trial: Trial) -> None:
        deployment = self._parameters.deployment
        if deployment:
            trial.child = DeploymentChild(trial.parameters, trial.label, deployment)
        else:
            folder = self._at("train").store.root / "sweeps"
            folder.mkdir(parents=True, exist_ok=True)
            key = train_call(*self._arguments(trial)).identity().key
            # Trials that differ in their evaluation alone share the training, and its key.
            whole = hashlib.sha256(trial.parameters.model_dump_json().encode()).hexdigest()[:8]
            trial.child = LocalChild(trial.parameters, trial.label, folder / f"{key}-{whole}.log")
        trial.state = "running"
        self._logger.info("started %s", trial.label)

    def _follow(self, trial: Trial) -> None:
        assert trial.child is not None
        reason = trial.child.ended()
        if reason is None:
            return
        if reason == "":
            self._collect(trial, reused=False)
            reason = "" if trial.state == "done" else "it ended well, but what it made is not in the store"
        if trial.state == "done":
            self._logger.info("%s: mean IoU %s", trial.label, percent(trial.miou))
        else:
            trial.state, trial.reason = "failed", reason
            self._logger.error("%s failed: %s", trial.label, reason)

    def _arguments(self, trial: Trial) -> tuple[Any, ...]:
        """Of the training stage. What it trains on is prepared here once, not by every child anew."""
        parameters = trial.parameters
        key = parameters.model_dump_json(include={"dataset", "preset", "sample", "fetch", "convert"})
        if key not in self._shards:
            self._shards[key] = prepare(parameters, self._at).shards
        return self._at("train"), parameters.values("train"), parameters.data.name, self._shards[key]

    def _collect(self, trial: Trial, *, reused: bool) -> None:
        """Take what is in the store, if all of it is."""
        arguments = self._arguments(trial)
        training = look_up(self._at("train"), train_call(*arguments))
        checkpoints = look_up(self._at("archive"), archive_call(training)) if training else None
        if training is None or checkpoints is None:
            return
        checkpoint = TrainedCheckpoint(training, checkpoints)
        call = evaluate_call(trial.parameters.values("evaluate"), arguments[-1], checkpoint)
        evaluation = look_up(self._at("evaluate"), call)
        if evaluation is not None:
            trial.result, trial.state, trial.reused = Trained(training, checkpoints, evaluation), "done", reused

    def _give_up_hopeless(self) -> None:
        step, ratio = self._parameters.give_up_after, self._parameters.give_up_ratio
        losses = [(trial, loss) for trial in self._trials if (loss := self._loss(trial, step)) is not None]
        best = min((loss for _, loss in losses), default=0.0)
        hopeless = [(trial, loss) for trial, loss in losses if trial.state == "running" and loss > ratio * best]
        for trial, loss in hopeless:
            trial.reason = f"loss {loss:.4g} at step {step}, the best one {best:.4g}"
            self._logger.info("%s is given up: %s", trial.label, trial.reason)
        self._stop([trial for trial, _ in hopeless], wanted=True)
        for trial, _ in hopeless:
            trial.state = "given up"

    def _loss(self, trial: Trial, step: int | None) -> float | None:
        """The loss that a trial had at a step, if it got there and its metrics can be read here."""
        if step is None or trial.state == "waiting":
            return None
        entry = self._at("train").store.entry(train_call(*self._arguments(trial)).identity(), None)
        # Of an execution that trains, the log alone comes here.
        points = read_points(entry.folder / "metrics.jsonl") or read_points(entry.log)
        if not points or points[-1][0] < step:
            return None
        before = [loss for at, loss in points if at <= step][-_POINTS:]
        return sum(before) / len(before) if before else None

    def _stop(self, trials: Sequence[Trial], *, wanted: bool) -> None:
        children = [trial.child for trial in trials if trial.child is not None]
        for child in children:
            child.stop(wanted=wanted)
        for child in children:
            child.wait_for_stop()


def _ranked(trials: Sequence[Trial]) -> list[Trial]:
    """The best first; those without a score last, in their order."""
    return sorted(trials, key=lambda trial: (trial.miou is None, -(trial.miou or 0.0)))


def _row(trial: Trial, best: bool) -> dict[str, Any]:
    checkpoint = trial.result.checkpoints.place_of("checkpoints.tar.gz") if trial.result else ""
    state = "reused" if trial.reused else trial.state
    return {
        **trial.point,
        "mean IoU": percent(trial.miou),
        "state": f"{state}{', best' if best and trial.result else ''}",
        "checkpoint": checkpoint or trial.reason,
    }


def summary(ranked: Sequence[Trial]) -> str:
    """A line for each trial, the best first, and where the best checkpoint is."""
    width = max(len(trial.label) for trial in ranked)
    lines = [
        f"{trial.label:{width}}  {percent(trial.miou):>8}  {trial.state} {trial.reason}".rstrip() for trial in ranked
    ]
    best = ranked[0].result
    where = [f"best checkpoint  {best.checkpoints.place_of('checkpoints.tar.gz')}"] if best else []
    return "\n".join([*lines, *where])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the flow from a command line; returns the exit status."""

    def body() -> None:
        words = sys.argv[1:] if arguments is None else arguments
        parameters = parse(SweepParameters, "python -m flows.sweep", words)
        console.start_api()
        print(summary(sweep_flow(parameters)))

    return console.run(body, hint="the same command trains what is missing")


if __name__ == "__main__":
    raise SystemExit(main())
