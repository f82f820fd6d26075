"""A run without a worker is cancelled in the UI."""

import threading
import time

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelling

from flows import cancelling, console
from flows.train import main

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(cancelling, "_LOOK", 0.2)
    monkeypatch.setattr(cancelling, "_cancelled", [])


def _newest():
    with get_client(sync_client=True) as client:
        (run,) = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=1)
    return run


@pytest.mark.timeout(90)
def test_the_stage_stops_and_the_run_is_cancelled(tmp_path, calls, monkeypatch, capsys):
    monkeypatch.setenv("FAKE_STAGE_HANGS", "train")

    def cancel():
        while not any("hangs" in log.read_text() for log in tmp_path.glob("store/train/*.log")):
            time.sleep(0.05)
        client.set_flow_run_state(_newest().id, Cancelling())

    with get_client(sync_client=True) as client:
        person = threading.Thread(target=cancel, daemon=True)
        person.start()
        assert main(["--preset=demo", f"--store={tmp_path / 'store'}"]) == 143
        person.join()
    assert "cancelled; the same command goes on from here" in capsys.readouterr().err
    assert _newest().state.name == "Cancelled"
    (log,) = tmp_path.glob("store/train/*.log")
    assert "stopped on request" in log.read_text()


def test_ctrl_c_is_no_cancel(capsys):
    def body():
        raise KeyboardInterrupt

    assert console.run(body) == 130
    assert capsys.readouterr().err == "stopped; the same command goes on from here\n"


def test_a_watch_ends_with_its_run(tmp_path, calls):
    assert main(["--preset=demo", f"--store={tmp_path / 'store'}"]) == 0
    deadline = time.monotonic() + 10
    while any(thread.name == "cancel-watch" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
