"""How a stage stops, in a process of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

POLITE = """
import time
from deeplab.errors import Stopped
from deeplab.stage import stop
stop.install()
try:
    with stop.polite_stop():
        print("ready", flush=True)
        while stop.stop_requested() is None:
            time.sleep(0.01)
        print("kept", flush=True)
except Stopped as stopped:
    raise SystemExit(stopped.exit_code)
"""
# Told to stop in the midst of something in which Python, or a library, lets no exception through.
AT_A_BAD_MOMENT = """
import os, signal, time, weakref
from deeplab.errors import Stopped
from deeplab.stage import stop

class Anything:
    pass

def ask(reference=None):
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(0.1)

stop.install()
anything = Anything()
reference = weakref.ref(anything, ask)
try:
    print("ready", flush=True)
    MOMENT
    while True:
        time.sleep(0.01)
except Stopped as stopped:
    raise SystemExit(stopped.exit_code)
"""
BAD_MOMENTS = {
    "a weak reference's callback": "del anything",
    "a library that tries again after every error": """try:
        ask()
    except Exception:
        pass""",
}
ABRUPT = POLITE.replace("with stop.polite_stop():", "if True:").replace("stop.stop_requested() is None", "True")


Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a program and waits for its word; none outlives its test."""
    with ExitStack() as stack:

        def begin(program: str, **environment: str) -> "subprocess.Popen[str]":
            process = subprocess.Popen(
                [sys.executable, "-c", program],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env={**os.environ, **environment},
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            return process

        yield begin


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_polite_stage_finishes_what_it_must(start: Start, number: int, code: int) -> None:
    process = start(POLITE)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == ("kept\n", code)


def test_other_stages_stop_at_once(start: Start) -> None:
    process = start(ABRUPT)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == ("", 143)


@pytest.mark.parametrize("moment", BAD_MOMENTS)
def test_no_request_is_lost(start: Start, moment: str) -> None:
    process = start(AT_A_BAD_MOMENT.replace("MOMENT", BAD_MOMENTS[moment]))
    output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == ("", 143)


def test_a_stage_stops_when_its_parent_is_gone(start: Start) -> None:
    process = start(POLITE, DEEPLAB_STOP_AT_END_OF_STDIN="1")
    time.sleep(0.2)
    assert process.poll() is None
    output, _ = process.communicate(timeout=20)  # closes the pipe, as the death of a parent does
    assert (output, process.returncode) == ("kept\n", 143)
