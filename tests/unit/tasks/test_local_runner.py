"""The runner with real processes. Whether one lives is read from /proc: a signal reaches zombies too."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tasks.runner import local

ROOT = Path(__file__).parents[3]


def python(code, *arguments):
    return [sys.executable, "-c", code, *map(str, arguments)]


def lives(process):
    """Whether a process is there and not a zombie."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return "State:\tZ" not in status


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)


def test_every_line_arrives_once_and_in_order():
    code = """
import sys
for number in range(3000):
    print(f"out {number}", flush=number % 100 == 0)
    print(f"err {number}", file=sys.stderr)
print("no line end", end="")
"""
    received = []
    assert local.run(python(code), lambda stream, line: received.append((stream, line))) == 0
    assert [line for stream, line in received if stream == "stdout"] == [
        *(f"out {number}" for number in range(3000)),
        "no line end",
    ]
    assert [line for stream, line in received if stream == "stderr"] == [f"err {number}" for number in range(3000)]


def test_exit_status_and_signal():
    assert local.run(python("raise SystemExit(7)"), lambda *_: None) == 7
    assert local.run(python("import os; os.kill(os.getpid(), 9)"), lambda *_: None) == -9


def test_undecodable_bytes_do_not_end_the_run():
    received = []
    code = "import os; os.write(1, b'a\\xff\\n')"
    assert local.run(python(code), lambda _, line: received.append(line)) == 0
    assert received == ["a\ufffd"]


def test_child_gets_no_prefect_settings(monkeypatch):
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    code = "import os; print(sorted(n for n in os.environ if n.startswith(('PREFECT', 'DEEPLAB', 'PYTHONUNB'))))"
    received = []
    local.run(python(code), lambda _, line: received.append(line))
    assert received == ["['DEEPLAB_STOP_AT_END_OF_STDIN', 'PYTHONUNBUFFERED']"]


POLITE = """
import signal, subprocess, sys, time
def stop(*_):
    print("wrote a checkpoint", flush=True)
    raise SystemExit(143)
signal.signal(signal.SIGTERM, stop)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print(helper.pid, flush=True)
time.sleep(60)
"""
STUBBORN = """
import os, signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_exception_stops_the_whole_group_and_keeps_the_last_lines(error):
    received = []

    def receive(_, line):
        received.append(line)
        if len(received) == 1:
            raise error

    with pytest.raises(error):
        local.run(python(POLITE), receive)
    assert received[1:] == ["wrote a checkpoint"]
    until(lambda: not lives(int(received[0])))


def test_signal_in_the_main_thread_stops_the_child():
    received = []
    timer = threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        local.run(python(POLITE), lambda _, line: received.append(line))
    assert received[1:] == ["wrote a checkpoint"]


def test_stubborn_child_is_killed_after_the_grace():
    received = []

    def receive(_, line):
        received.append(line)
        raise KeyboardInterrupt

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        local.run(python(STUBBORN), receive, grace=0.5)
    assert time.monotonic() - started < 5
    assert not lives(int(received[0]))


def test_process_left_behind_does_not_keep_the_run():
    code = """
import subprocess, sys
print(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]).pid, flush=True)
"""
    received = []
    started = time.monotonic()
    try:
        assert local.run(python(code), lambda _, line: received.append(line)) == 0
        assert time.monotonic() - started < 10
    finally:
        os.kill(int(received[0]), signal.SIGKILL)


def test_child_is_gone_when_its_parent_is_killed(tmp_path):
    child = f"""
import os, sys, time
sys.path.insert(0, {str(ROOT)!r})
from deeplab.stage import stop
stop.install()
with open({str(tmp_path / "pid")!r}, "w") as file:
    file.write(str(os.getpid()) + chr(10))
time.sleep(60)
"""
    parent = "import sys; from tasks.runner import local; local.run([sys.executable, '-c', sys.argv[1]], print)"
    process = subprocess.Popen(python(parent, child), cwd=ROOT)
    try:
        until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().endswith("\n"), 30)
    finally:
        process.kill()
        process.wait()
    until(lambda: not lives(int((tmp_path / "pid").read_text())))
