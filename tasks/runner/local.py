"""A stage as a child process of this one, in a session of its own.

The main thread consumes what the child prints, because a cancel, SIGTERM or Ctrl-C is raised there and nowhere
else: so the child is always told to stop. Should this process vanish, the end of the child's standard input tells it.
"""

import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import IO, Literal

from deeplab.stage.stop import STDIN_VARIABLE

Stream = Literal["stdout", "stderr"]
Receiver = Callable[[Stream, str], None]

# Seconds between asking a stage to stop and ending it. A training writes a checkpoint in that time; a cancelled
# flow run must be gone within 15 s, or Prefect's worker ends it without any clean-up.
_GRACE = 12.0
# Seconds to wait for the last lines of a stage that has ended: a process it left behind may hold the pipes open.
_LAST_LINES = 2.0


def run(command: Sequence[str], receive: Receiver, *, grace: float = _GRACE) -> int:
    """Run a command to its end; on any exception here, stop it first.

    Args:
        command: the program and its arguments.
        receive: called in this thread with every line, in order, without its line end.
        grace: seconds the command has to stop.

    Returns:
        The exit status; negative: the number of the signal that ended it.
    """
    child = _Child(command)
    try:
        child.deliver(receive)
        return child.wait()
    except BaseException:
        child.stop(receive, grace)
        raise
    finally:
        child.close()


def _environment() -> dict[str, str]:
    """The child's environment: ours without Prefect's settings (a stage needs no API key)."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "TF_CPP_MIN_LOG_LEVEL": "2", STDIN_VARIABLE: "1"}


class _Child:
    """The process, the two threads that read its pipes, and the queue between them and the main thread."""

    def __init__(self, command: Sequence[str]) -> None:
        self._lines: queue.Queue[tuple[Stream, str | None]] = queue.Queue()
        self._open = 2
        self._process = subprocess.Popen(
            list(command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
            encoding="utf-8",
            errors="replace",
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._read("stdout", self._process.stdout)
        self._read("stderr", self._process.stderr)

    def _read(self, name: Stream, pipe: IO[str]) -> None:
        def read() -> None:
            with pipe:
                for line in pipe:
                    self._lines.put((name, line.rstrip("\r\n")))
            self._lines.put((name, None))

        # A daemon: a process that the stage left behind may hold the pipe open for longer than this one lives.
        threading.Thread(target=read, name=f"stage-{name}", daemon=True).start()

    def deliver(self, receive: Receiver, deadline: float | None = None) -> None:
        """Hand on lines until both pipes end, or the process has ended and is silent, or the deadline."""
        quiet_since = time.monotonic()
        while self._open and (deadline is None or time.monotonic() < deadline):
            try:
                name, line = self._lines.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None and time.monotonic() - quiet_since > _LAST_LINES:
                    return
                continue
            quiet_since = time.monotonic()
            if line is None:
                self._open -= 1
            else:
                receive(name, line)

    def wait(self) -> int:
        """The exit status."""
        return self._process.wait()

    def stop(self, receive: Receiver, grace: float) -> None:
        """End the child and all its descendants: politely, then not."""
        deadline = time.monotonic() + grace
        try:
            self._signal(signal.SIGTERM)
            self.deliver(receive, deadline)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self.deliver(receive, time.monotonic() + _LAST_LINES)

    def _signal(self, number: int) -> None:
        # The group outlives its leader as long as any descendant is in it; gone altogether is what we want.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, number)

    def close(self) -> None:
        """Let go of the child's standard input; the other pipes end with it."""
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
