"""How a sweep starts its trials and stops them."""

import json
import logging
import subprocess
import sys
from types import SimpleNamespace
from typing import ClassVar

import httpx
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.states import Completed, Running

from flows.children import DeploymentChild, LocalChild
from flows.parameters import TrainFlowParameters
from flows.sweep import SweepFailed, sweep_flow
from flows.sweep_parameters import SweepParameters, labels

pytestmark = pytest.mark.usefixtures("api")


class _Child:
    """A trial that ends as it is told."""

    outcome: object = "broke"
    logs: ClassVar[list] = []
    stops: ClassVar[list] = []

    def __init__(self, parameters, label, log):
        self.logs.append((log, parameters.values("evaluate"), label))

    def ended(self):
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome

    def stop(self, *, wanted):
        self.stops.append(wanted)

    def wait_for_stop(self):
        """It has."""


@pytest.fixture
def child(monkeypatch):
    made = type("Child", (_Child,), {"logs": [], "stops": []})
    monkeypatch.setattr("flows.sweep.LocalChild", made)
    return made


def sweep(tmp_path, **vary):
    base = {"preset": "demo", "store": str(tmp_path / "store")}
    return SweepParameters(base=base, vary=vary, concurrency=2)


def test_trials_that_share_a_training_have_files_of_their_own(tmp_path, calls, child):
    with pytest.raises(SweepFailed, match=r"2 of 2 trainings failed, the first .*: broke"):
        sweep_flow(sweep(tmp_path, **{"evaluate.eval_scales": [[1.0], [0.75, 1.0]]}))
    (one, first, name), (other, second, _) = child.logs
    assert one != other and one.parent == other.parent == tmp_path / "store" / "sweeps"
    assert first != second
    assert name == "eval_scales=[1.0]"


@pytest.mark.parametrize(("interruption", "wanted"), [(KeyboardInterrupt(), True), (ZeroDivisionError(), False)])
def test_only_a_person_stops_what_trials_run_elsewhere(tmp_path, calls, child, interruption, wanted):
    child.outcome = interruption
    with pytest.raises(type(interruption)):
        sweep_flow(sweep(tmp_path, **{"train.seed": [1, 2]}))
    assert child.stops == [wanted, wanted]


def test_a_hopeless_training_elsewhere_is_given_up_by_what_its_log_tells(tmp_path, calls, child, monkeypatch):
    def training(self, parameters, label, log):
        """It hands on what an execution says."""
        key, loss = log.name.partition("-")[0], 1.0 + 9.0 * parameters.train.seed
        lines = [json.dumps({"step": step, "loss": loss}) for step in (5, 10, 15)]
        file = tmp_path / "store" / "train" / f"{key}.log"
        file.parent.mkdir(exist_ok=True)
        file.write_text("\n".join(["2026-01-01 00:00:00,000 INFO starts", *lines, '{"st']))

    monkeypatch.setattr(child, "__init__", training)
    monkeypatch.setattr(child, "ended", lambda self: "it was the better one" if self.stops else None)
    monkeypatch.setattr("flows.sweep._COMPARE", 0.0)
    monkeypatch.setattr("flows.sweep._POLL", 0.01)
    parameters = sweep(tmp_path, **{"train.seed": [0, 1]}).model_copy(update={"give_up_after": 10})
    with pytest.raises(SweepFailed, match=r"1 of 2 trainings failed, the first \(seed=0\): it was the better one"):
        sweep_flow(parameters)
    assert child.stops == [True]


def test_run_of_a_deployment_goes_on_unless_somebody_wants_it_stopped(monkeypatch):
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow(lambda: None, name="trial"), state=Running())
        monkeypatch.setattr("flows.children.run_deployment", lambda *_, **__: run)
        trial = DeploymentChild(TrainFlowParameters(preset="demo"), "seed=1", "trial/trial")
        trial.stop(wanted=False)
        assert client.read_flow_run(run.id).state.name == "Running" and trial.ended() is None
        trial.stop(wanted=True)
        assert client.read_flow_run(run.id).state.name == "Cancelling"


def test_a_sweep_that_is_run_again_follows_the_trials_that_went_on(monkeypatch):
    parameters, none = TrainFlowParameters(preset="demo"), flow(lambda: None, name="trial")

    def trial(task_run, label, state):
        given = {**parameters.model_dump(mode="json", exclude_none=True), "label": label}
        return client.create_flow_run(
            none, parameters={"parameters": given}, parent_task_run_id=task_run.id, state=state
        )

    with get_client(sync_client=True) as client:
        sweep = client.create_flow_run(flow(lambda: None, name="sweep"), state=Running())
        shown = client.create_task_run(task(lambda: None), sweep.id, dynamic_key="0", state=Running())
        other, wanted = (trial(shown, label, Running()) for label in ("seed=1", "seed=2"))
        ended = trial(shown, "seed=3", Completed())
        made = trial(shown, "seed=4", Running())
        monkeypatch.setattr("flows.children.run_deployment", lambda *_, **__: made)
        attempt = SimpleNamespace(run_count=2, id=str(sweep.id))
        monkeypatch.setattr("flows.children.flow_run", attempt)
        monkeypatch.setattr("flows.children.get_run_logger", lambda: logging.getLogger("sweep"))
        found = [DeploymentChild(parameters, f"seed={number}", "trial/trial")._id for number in (1, 2, 3)]
        assert found == [other.id, wanted.id, made.id] and ended.id not in found
        attempt.run_count = 1
        assert DeploymentChild(parameters, "seed=1", "trial/trial")._id == made.id


def test_a_trial_that_was_killed_tells_the_signal_and_not_its_last_line(tmp_path):
    log = tmp_path / "trial.log"
    log.write_text("step 10\n")
    trial = object.__new__(LocalChild)
    trial._log, trial._process = log, subprocess.Popen([sys.executable, "-c", "import os; os.abort()"])
    trial._process.wait()
    assert trial.ended() == f"ended by SIGABRT, as where memory is short (log: {log})"


def test_server_that_is_away_does_not_end_a_trial(monkeypatch):
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow(lambda: None, name="trial"), state=Running())
    monkeypatch.setattr("flows.children.run_deployment", lambda *_, **__: run)
    trial = DeploymentChild(TrainFlowParameters(preset="demo"), "seed=1", "trial/trial")

    def away(**_):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr("flows.children.get_client", away)
    assert trial.ended() is None


def test_fields_of_one_name_in_two_sections_are_told_apart():
    points = [{"train.output_stride": 16, "evaluate.output_stride": 8, "train.seed": 1}]
    assert labels(points) == ["train.output_stride=16, evaluate.output_stride=8, seed=1"]
