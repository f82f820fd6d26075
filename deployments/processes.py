"""Child processes that end with this one: a server, a worker, and whatever these have started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Lines of a log that are shown when its process has ended by itself.
_SHOWN = 12
# Reads the numbers of processes until its standard input ends, which only our own end does, and ends them then: first
# as Ctrl-C does, and at last with all that is in their sessions.
_GUARD = """
all=
while read pid; do all="$all $pid"; done
for pid in $all; do kill -INT $pid; done
sleep 20
for pid in $all; do kill -KILL -- -$pid; done
"""


@dataclass(frozen=True)
class Child:
    """A process in a session of its own, so that a terminal's Ctrl-C reaches only this one.

    Attributes:
        name: what it is.
        process: the process.
        log: file that takes what it prints.
    """

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def running(self) -> bool:
        """Whether it has not ended."""
        return self.process.poll() is None

    def last_lines(self) -> str:
        """The end of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in lines[-_SHOWN:])

    def end(self, number: signal.Signals, seconds: float) -> None:
        """Ask it to end, and end it and its session after so many seconds."""
        if self.running:
            self.process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Children:
    """Starts processes, which end with this one even if it is killed.

    Args:
        environment: of each of them.
        logs: folder of their logs, ``NAME.log``.
    """

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self.environment, self._logs = environment, logs
        self.all: list[Child] = []
        words = ["sh", "-c", _GUARD]
        quiet = subprocess.DEVNULL
        self._guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=quiet, start_new_session=True)

    def start(self, name: str, module: Sequence[str]) -> Child:
        """Start ``python -m MODULE …``."""
        log = self._logs / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *module],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        child = Child(name, process, log)
        self.all.append(child)
        assert self._guard.stdin is not None
        self._guard.stdin.write(f"{process.pid}\n".encode())
        self._guard.stdin.flush()
        return child

    def ended(self) -> None:
        """All of them have been ended: their numbers may be other processes' from now on."""
        self._guard.kill()
        self._guard.communicate()


def children_of(pid: int) -> list[int]:
    """The running processes that a process has started."""
    return [child for child, parent in _parents() if parent == pid]


def descendants(pid: int) -> list[int]:
    """The running processes that a process has started, and these in turn."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents():
        children.setdefault(parent, []).append(child)
    found = list(children.get(pid, ()))
    for child in found:
        found.extend(children.get(child, ()))
    return found


def wait_for(pids: Iterable[int], seconds: float) -> None:
    """Wait until processes that are not our children have ended, so many seconds at most."""
    waiting, deadline = set(pids), time.monotonic() + seconds
    while waiting and time.monotonic() < deadline:
        time.sleep(0.1)
        waiting &= {child for child, _ in _parents()}


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to processes; those that have ended are passed over."""
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _parents() -> list[tuple[int, int]]:
    """Each running process and the one that has started it."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
        rows = [line.split() for line in listed.stdout.splitlines()]
        return [(int(pid), int(parent)) for pid, parent, state in rows if not state.startswith("Z")]
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with suppress(OSError):
            # The name, in brackets, may hold anything.
            state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found.append((int(entry.name), int(parent)))
    return found
