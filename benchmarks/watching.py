"""A process and its stages, as the system tells: how long each lived, and the memory of the first alone."""

import os
import subprocess
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Command

# Seconds between two looks: the end of a stage is seen that much late at most.
_LOOK = 0.005
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Watched:
    """What was seen of a process.

    Attributes:
        wall: seconds from its start to its end.
        stages: seconds from the spawn to the exit of all its stages together.
        peak: of its own memory, not of its children's or its parent's, in MB (10**6 bytes).
    """

    wall: float = 0.0
    stages: float = 0.0
    peak: float = 0.0

    @property
    def overhead(self) -> float:
        """Seconds in which no stage was there."""
        return self.wall - self.stages


def watch(command: Command, stages: Collection[str]) -> Watched:
    """Run a command to its end, with an eye on it.

    Args:
        command: what to run.
        stages: names of the stages to time, ``python -m deeplab NAME``.

    Raises:
        RuntimeError: if it fails; with the end of what it said.
    """
    command.prepare()
    environment = {**os.environ, **(command.variables or {})}
    with tempfile.TemporaryFile() as said:
        begun = time.monotonic()
        process = subprocess.Popen(
            command.words, env=environment, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
        eye = _Eye(process.pid, stages)
        while process.poll() is None:
            eye.look()
            time.sleep(_LOOK)
        eye.seen.wall = time.monotonic() - begun
        if process.returncode:
            said.seek(0)
            end = said.read().decode(errors="replace")[-2000:]
            raise RuntimeError(f"{' '.join(command.words)} ended with {process.returncode}: {end}")
    return eye.seen


@dataclass
class _Eye:
    """Looks at a process again and again."""

    pid: int
    stages: Collection[str]
    seen: Watched = field(default_factory=Watched)
    _spawned: dict[int, float] = field(default_factory=dict)

    def look(self) -> None:
        """Note what has changed since the last look."""
        with suppress(OSError):  # it has just ended
            self._remember_peak()
            children = map(int, Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split())
            living = {child for child in children if self._is_stage(child)}
            for child in living - set(self._spawned):
                self._spawned[child] = _spawn_of(child)
            for child in set(self._spawned) - living:
                self.seen.stages += time.clock_gettime(time.CLOCK_BOOTTIME) - self._spawned.pop(child)

    def _remember_peak(self) -> None:
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (line,) = [line for line in lines if line.startswith("VmHWM:")] or ["VmHWM: 0 kB"]
        self.seen.peak = max(self.seen.peak, int(line.split()[1]) * 1024 / 1e6)

    def _is_stage(self, child: int) -> bool:
        """Whether it is a stage that has not ended: what has, has no command line any more."""
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().decode().split("\0")
        except OSError:
            return False
        return words[1:3] == ["-m", "deeplab"] and words[3] in self.stages


def _spawn_of(child: int) -> float:
    """When a process began, in seconds since the machine did."""
    fields = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return int(fields[19]) / _TICKS
