"""How a sweep starts its trials and stops them."""

import json
from typing import ClassVar

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.states import Running

from flows.children import DeploymentChild
from flows.parameters import TrainFlowParameters
from flows.sweep import SweepFailed, sweep_flow
from flows.sweep_parameters import SweepParameters, labels

pytestmark = pytest.mark.usefixtures("api")


class _Child:
    """A trial that ends as it is told."""

    outcome: object = "broke"
    logs: ClassVar[list] = []
    stops: ClassVar[list] = []

    def __init__(self, parameters, log):
        self.logs.append((log, parameters.values("evaluate")))

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
    (one, first), (other, second) = child.logs
    assert one != other and one.parent == other.parent == tmp_path / "store" / "sweeps"
    assert first != second


@pytest.mark.parametrize(("interruption", "wanted"), [(KeyboardInterrupt(), True), (ZeroDivisionError(), False)])
def test_only_a_person_stops_what_trials_run_elsewhere(tmp_path, calls, child, interruption, wanted):
    child.outcome = interruption
    with pytest.raises(type(interruption)):
        sweep_flow(sweep(tmp_path, **{"train.seed": [1, 2]}))
    assert child.stops == [wanted, wanted]


def test_a_hopeless_training_elsewhere_is_given_up_by_what_its_log_tells(tmp_path, calls, child, monkeypatch):
    def training(self, parameters, log):
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
        trial = DeploymentChild(TrainFlowParameters(preset="demo"), "trial/trial", "name")
        trial.stop(wanted=False)
        assert client.read_flow_run(run.id).state.name == "Running" and trial.ended() is None
        trial.stop(wanted=True)
        assert client.read_flow_run(run.id).state.name == "Cancelling"


def test_server_that_is_away_does_not_end_a_trial(monkeypatch):
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(flow(lambda: None, name="trial"), state=Running())
    monkeypatch.setattr("flows.children.run_deployment", lambda *_, **__: run)
    trial = DeploymentChild(TrainFlowParameters(preset="demo"), "trial/trial", "name")

    def away(**_):
        raise httpx.ConnectError("refused")

    monkeypatch.setattr("flows.children.get_client", away)
    assert trial.ended() is None


def test_fields_of_one_name_in_two_sections_are_told_apart():
    points = [{"train.output_stride": 16, "evaluate.output_stride": 8, "train.seed": 1}]
    assert labels(points) == ["train.output_stride=16, evaluate.output_stride=8, seed=1"]
