"""How a sweep starts its trials and stops them."""

from typing import ClassVar

import pytest

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


def test_fields_of_one_name_in_two_sections_are_told_apart():
    points = [{"train.output_stride": 16, "evaluate.output_stride": 8, "train.seed": 1}]
    assert labels(points) == ["train.output_stride=16, evaluate.output_stride=8, seed=1"]
