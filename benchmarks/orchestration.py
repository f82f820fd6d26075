"""What orchestration costs: the demo as a flow, from the start of its process to its end, less its stages.

    python -m benchmarks.orchestration --rounds=3

A stage's time is that of its process from spawn to exit, as the system tells; the look at a new data set is no stage
and counts as overhead. The demo runs against a server and with the embedded API, each time with nothing made yet and
with everything; a flow that does nothing stands beside, as what Prefect itself costs.
"""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from benchmarks.processes import Command, held
from benchmarks.watching import Watched, watch
from tasks.call import OUTPUTS
from tests import prefect_server

_ROOT = Path(__file__).resolve().parents[1]
_EMPTY = "from prefect import flow\n\n@flow\ndef empty():\n    pass\n\nempty()\n"


def main() -> int:
    """Measure, and print; returns 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each command")
    given = parser.parse_args()
    for name in [name for name in os.environ if name.startswith("PREFECT_")]:
        del os.environ[name]  # of a person's own server
    with tempfile.TemporaryDirectory(prefix="deeplab-benchmark-") as name:
        folder = Path(name)
        (folder / "empty.py").write_text(_EMPTY)
        with prefect_server.running(folder / "server") as server:
            embedded = {"PREFECT_HOME": str(folder / "embedded")}
            commands = _commands(folder, "server", server.environment) | _commands(folder, "embedded API", embedded)
            runs = measure(commands, given.rounds)
    print("\n" + _table({name: _median(each) for name, each in runs.items()}), end="\n\n")
    kept = [held(*line) for line in _targets({name: _median(each) for name, each in runs.items()})]
    return 0 if all(kept) else 1


def _commands(folder: Path, place: str, variables: Mapping[str, str]) -> dict[str, Command]:
    """In the order of a round: the second run of the demo finds what the first has made."""
    store = folder / f"store of {place}"
    train = [sys.executable, "-m", "flows.train", "--preset=demo", f"--store={store}"]
    variables = {**variables, "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "PYTHONPATH": str(_ROOT)}
    return {
        f"{place}, empty flow": Command([sys.executable, str(folder / "empty.py")], variables=variables),
        f"{place}, first run": Command(train, partial(shutil.rmtree, store, ignore_errors=True), variables),
        f"{place}, all reused": Command(train, variables=variables),
    }


def measure(commands: Mapping[str, Command], rounds: int) -> dict[str, list[Watched]]:
    """Run every command once a round, in turn; before that the empty flows once, which make databases."""
    for name, command in commands.items():
        if name.endswith("empty flow"):
            watch(command, OUTPUTS)
    runs: dict[str, list[Watched]] = {name: [] for name in commands}
    for number in range(rounds):
        for name, command in commands.items():
            runs[name].append(watch(command, OUTPUTS))
            print(f"round {number + 1}  {name:26} {runs[name][-1].overhead:6.2f} s of overhead", flush=True)
    return runs


def _median(runs: Sequence[Watched]) -> Watched:
    return Watched(*(statistics.median(getattr(run, field) for run in runs) for field in ("wall", "stages", "peak")))


def _table(runs: Mapping[str, Watched]) -> str:
    lines = [f"{'':26} {'wall s':>8} {'stages s':>9} {'overhead s':>11} {'peak MB':>8}"]
    for name, run in runs.items():
        lines.append(f"{name:26} {run.wall:8.2f} {run.stages:9.2f} {run.overhead:11.2f} {run.peak:8.0f}")
    return "\n".join(lines)


def _targets(runs: Mapping[str, Watched]) -> list[tuple[str, float, float]]:
    anything = float("inf")
    embedded = {name: runs[f"embedded API, {name}"].overhead for name in ("first run", "all reused", "empty flow")}
    return [
        ("overhead of a first run, server, s", runs["server, first run"].overhead, 15.0),
        ("overhead with everything reused, server, s", runs["server, all reused"].overhead, 8.0),
        ("first run / empty flow, embedded API", embedded["first run"] / embedded["empty flow"], anything),
        ("all reused / empty flow, embedded API", embedded["all reused"] / embedded["empty flow"], anything),
        ("peak MB of the flow's process", max(run.peak for run in runs.values()), 250.0),
    ]


if __name__ == "__main__":
    sys.exit(main())
