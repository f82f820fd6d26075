"""A flow as a process of its own, with the embedded API: signals reach the stage, and a person gets a line."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
START = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from tasks.call import StageCall
command = StageCall.command
def fake(self, output):
    return [sys.executable, {str(ROOT / "tests/unit/tasks/fake_stage.py")!r}, *command(self, output)[3:]]
StageCall.command = fake
from flows.train import main
raise SystemExit(main())
"""


@pytest.fixture
def process(tmp_path):
    """A flow whose training goes on until it is told to stop."""
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "FAKE_STAGE_CALLS": str(tmp_path / "calls"),
        "FAKE_STAGE_HANGS": "train",
    }
    words = [sys.executable, "-c", START, "--preset=demo", f"--store={tmp_path / 'store'}"]
    process = subprocess.Popen(
        words, env=environment, cwd=tmp_path, start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stop_reaches_the_stage_and_is_recorded(tmp_path, process, number, status):
    log = _wait_for_train_log(tmp_path, process)
    started = time.monotonic()
    # As a terminal does: Ctrl-C goes to every process of the group, the embedded API among them.
    os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    assert time.monotonic() - started < 15
    assert process.returncode == status, errors
    assert "goes on from here" in errors
    assert "Traceback" not in errors
    assert "Crash detected! Execution was aborted by" in errors
    assert log.read_text().splitlines()[-1] == "stopped on request; the same command goes on from here"
    assert not Path(f"/proc/{_stage(log)}").exists()
    assert not _group(process.pid), "the embedded API was left behind"


def test_killed_flow_leaves_neither_stage_nor_api_behind(tmp_path, process):
    stage = _stage(_wait_for_train_log(tmp_path, process))
    assert len(_group(process.pid)) == 2
    process.kill()
    deadline = time.monotonic() + 15
    while _group(process.pid) or _group(stage):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _stage(log):
    """The process number that the fake stage tells in its first line; it leads a group of its own."""
    return int(log.read_text().partition("\n")[0].rpartition(" ")[2])


def _group(leader):
    """Processes of a group that live."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, group = stat.read_text().rpartition(")")[2].split()[:3]
            if int(group) == leader and state != "Z":
                found.append(stat.parent.name)
    return found


def _wait_for_train_log(folder, process):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        for log in (folder / "store").glob("train/*.log"):
            if log.read_text().endswith("\n"):
                return log
        time.sleep(0.1)
    raise AssertionError(f"the train stage did not start (status {process.poll()})")
