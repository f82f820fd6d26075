"""Times commands as whole processes, in turn, so that a busy machine slows all of them alike."""

import os
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A command to time.

    Attributes:
        words: program and arguments.
        prepare: called before each run: removes what the last one left.
        variables: set in its environment.
    """

    words: Sequence[str]
    prepare: Callable[[], None] = lambda: None
    variables: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Cost:
    """What a process took: seconds by the clock, seconds of processor, peak memory in MB (10**6 bytes).

    The system counts the memory of the program that starts a process too: no peak is below this program's own.
    """

    wall: float
    cpu: float
    peak: float


def run_once(command: Command) -> Cost:
    """Run a command.

    Raises:
        RuntimeError: if it fails; with what it said.
    """
    command.prepare()
    os.sync()  # what the last one left to be written is not on this one's account
    environment = {**os.environ, **(command.variables or {})}
    begun = time.monotonic()
    process = subprocess.Popen(
        command.words, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    said = process.stderr.read().decode(errors="replace")
    _, status, usage = os.wait4(process.pid, 0)
    wall, process.returncode = time.monotonic() - begun, os.waitstatus_to_exitcode(status)
    process.stderr.close()
    if process.returncode:
        raise RuntimeError(f"{' '.join(command.words)} ended with {process.returncode}: {said[-2000:]}")
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6)


def run_in_turn(commands: Mapping[str, Command], rounds: int) -> dict[str, Cost]:
    """Run every command once a round; returns the medians of each."""
    costs: dict[str, list[Cost]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            costs[name].append(run_once(command))
    return {name: _median(each) for name, each in costs.items()}


def _median(costs: Sequence[Cost]) -> Cost:
    return Cost(*(statistics.median(getattr(cost, field) for cost in costs) for field in ("wall", "cpu", "peak")))


def table(costs: Mapping[str, Cost]) -> str:
    """The medians as aligned lines."""
    width = max(map(len, costs))
    lines = [f"{'':{width}}  {'wall s':>8} {'CPU s':>8} {'peak MB':>8}"]
    lines += [f"{name:{width}}  {cost.wall:8.2f} {cost.cpu:8.2f} {cost.peak:8.0f}" for name, cost in costs.items()]
    return "\n".join(lines)


def held(what: str, value: float, limit: float) -> bool:
    """Print a figure beside its limit, if it has one; whether it keeps to it."""
    bound = "" if limit == float("inf") else f"  at most {limit:g}{'' if value <= limit else '  MISSED'}"
    print(f"{what:46} {value:8.3f}{bound}")
    return value <= limit
