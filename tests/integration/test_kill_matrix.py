"""kill -9 of the flow, its stage, the worker and the server, in the middle of four stages, and the docs' table of it.

``DEEPLAB_WRITE_DOCS=1`` makes a run write its rows of the table in ``docs/reliability.md``. Every other run must find
there what happens; the table's figures are those of the run that wrote them.
"""

import itertools
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.azurite import Azurite, needs_azurite
from tests.integration.deployed_runs import wait_for
from tests.integration.killed_runs import STAGES, STEPS, Broken, Lab, break_off, checkpoints, digests, open_lab
from tests.integration.reliability_table import Row, documented, write
from tests.processes import that_mention

pytestmark = [pytest.mark.chaos, needs_azurite, pytest.mark.timeout(900)]
KILLED, DURING = ("flow", "stage", "worker", "server"), ("fetch", "convert", "train", "export")
# What a person does, after which the run is completed.
REMEDIES = {"flow": "run it again", "stage": "run it again", "worker": "nothing", "server": "start it again"}
# What the worker says when it reports a dead run for the second time: a retry that comes before is undone by that.
_REPORTED_AGAIN = (
    "Check whether the flow run exceeded its memory allocation. If running in a container, increase the memory limit. "
    "If this was intentional cancellation, no action is needed."
)
# The states of the run from the kill on; without those that depend on the moment at which they are asked for.
STATES = {
    "flow": ["Crashed", "Scheduled", "Running", "Completed"],
    "stage": ["Failed", "Scheduled", "Running", "Completed"],
    "worker": ["Completed"],
    "server": ["Completed"],
}


@pytest.fixture(scope="module")
def lab(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with open_lab(folder, azurite) as lab:
        yield lab
    assert not that_mention(str(folder))


@pytest.fixture(scope="module")
def unbroken(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The digests of a run that nobody disturbs."""
    store = tmp_path_factory.mktemp("unbroken")
    lab.wait_for_end(lab.start(store))
    found = digests(store)
    assert {name.partition("/")[0] for name in found} == set(STAGES)
    return found


@pytest.fixture(scope="module")
def table() -> Iterator[list[Row]]:
    rows: list[Row] = []
    yield rows
    if os.environ.get("DEEPLAB_WRITE_DOCS"):
        write(rows)


@pytest.mark.parametrize(("killed", "during"), list(itertools.product(KILLED, DURING)))
def test_a_kill_loses_and_doubles_nothing(
    lab: Lab, unbroken: dict[str, str], table: list[Row], tmp_path: Path, killed: str, during: str
) -> None:
    store = tmp_path / "store"
    broken = break_off(lab, store, killed, during)
    state, seconds = _react(lab, broken)
    times = checkpoints(store)
    lab.wait_for_end(broken.run)
    end = time.time()
    if killed == "worker":
        lab.worker.start()
    assert digests(store) == unbroken
    _check_files(broken)
    _check_run(lab, broken)
    again, lost = _done_again(lab, broken, times)
    row = Row(killed, during, state, REMEDIES[killed], again, lost, seconds, end - broken.at)
    table.append(row)
    if not os.environ.get("DEEPLAB_WRITE_DOCS"):
        assert row.words in documented()


def _react(lab: Lab, broken: Broken) -> tuple[str, float | None]:
    """Do what a person does; what the run was before, and after how many seconds, if that is its end."""
    if broken.killed == "server":
        lab.server.start()
    if REMEDIES[broken.killed] != "run it again":
        return str(lab.runs.run(broken.run)["state"]["name"]), None
    wait_for(lambda: lab.state(broken.run) != "RUNNING", 60, 0.1)
    seconds, state = time.time() - broken.at, lab.runs.run(broken.run)["state"]
    assert "SIGKILL" in state["message"] or "was killed" in state["message"]
    wait_for(lambda: not that_mention(str(broken.store)), 20, 0.1)
    if broken.killed == "flow":
        wait_for(lambda: _REPORTED_AGAIN in lab.runs.log(broken.run))
    retry = [sys.executable, "-m", "prefect", "flow-run", "retry", broken.run]
    subprocess.run(retry, env=lab.server.environment, stdout=subprocess.DEVNULL, check=True)
    return str(state["name"]), seconds


def _check_files(broken: Broken) -> None:
    """What was whole at the kill is untouched, nothing is unfinished, and each step of the training is told once."""
    assert broken.whole == {path: path.stat().st_mtime_ns for path in broken.whole}
    unfinished = (".tmp-", ".partial", ".unfinished")
    assert not [path for path in broken.store.rglob(".*") if path.name.startswith(unfinished)]
    (metrics,) = broken.store.glob("train/*/metrics.jsonl")
    assert [json.loads(line)["step"] for line in metrics.read_text().splitlines()] == list(range(1, STEPS + 1))


def _check_run(lab: Lab, broken: Broken) -> None:
    """The run's states, and what it said: each stage was run once, but for the broken one if the run was repeated."""
    wait_for(lambda: not that_mention(str(broken.store)), 20, 0.1)
    states = lab.runs.states(broken.run)
    assert [name for name in states[states.index("Running") + 1 :] if name not in ("Pending", "Submitting")] == STATES[
        broken.killed
    ]
    print(broken.killed, broken.during, states, lab.runs.task_states(broken.run))
    log = "\n".join(lab.runs.log(broken.run))
    ran, reused = Counter(re.findall(r"(\w+) runs because", log)), Counter(re.findall(r"reused \S+/store/(\w+)/", log))
    repeated = "Scheduled" in STATES[broken.killed]
    assert reused == (Counter(STAGES[: STAGES.index(broken.during)]) if repeated else Counter())
    # Lines of the last seconds before a kill may not have reached the API.
    limits = {stage: 1 + (repeated and stage == broken.during) for stage in STAGES}
    assert all(ran[stage] <= limits[stage] for stage in STAGES)
    assert (f"{broken.during} runs because it is unfinished" in log) == repeated


def _done_again(lab: Lab, broken: Broken, times: dict[int, float]) -> tuple[str, float]:
    """What was done a second time, and seconds of training that were lost."""
    resumed = re.findall(r"resuming from model\.ckpt-(\d+)", broken.log())
    if broken.during == "train" and resumed:
        (step,) = map(int, resumed)
        steps = broken.step - step
        return f"{steps} steps" if steps > 0 else "nothing", max(0.0, broken.at - times[step])
    assert not resumed
    if broken.during == "fetch":
        bytes_again = lab.proxy.sent - broken.sent - lab.size
        return f"{bytes_again / 1e6:.0f} of {lab.size / 1e6:.0f} MB" if bytes_again > 0 else "nothing", 0.0
    if "Scheduled" not in STATES[broken.killed]:
        return "nothing", 0.0
    if broken.during == "convert":
        return f"{broken.begun} of {len(list(broken.store.glob('convert/*/*.tfrecord')))} shards", 0.0
    return "the export", 0.0
