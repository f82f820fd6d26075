"""Flows against a Prefect API of their own, with stages that take a moment instead of minutes."""

import sys
from pathlib import Path

import pytest
from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
from prefect.testing.utilities import prefect_test_harness

from tasks.call import StageCall

FAKE_STAGE = Path(__file__).parents[1] / "tasks" / "fake_stage.py"


@pytest.fixture(scope="session")
def api():
    """A throw-away Prefect API; no heartbeat, which costs every run a second at its end."""
    with (
        prefect_test_harness(server_startup_timeout=120),
        temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}),
    ):
        yield


@pytest.fixture
def calls(tmp_path, monkeypatch):
    """Fake stages; returns a function that tells which ran since it was last asked."""
    file = tmp_path / "calls"
    file.touch()
    monkeypatch.setenv("FAKE_STAGE_CALLS", str(file))
    command = StageCall.command

    def fake(self, output):
        words = command(self, output)
        return [sys.executable, str(FAKE_STAGE), *words[3:]]

    monkeypatch.setattr(StageCall, "command", fake)
    monkeypatch.setattr("flows.train.inspect", lambda dataset, source: None)  # there is nothing to look at

    def ran():
        names = file.read_text().split()
        file.write_text("")
        return names

    return ran
