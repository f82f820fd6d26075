"""A sweep with real trainings: killed half way and started again, it trains exactly what is missing."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.remote_runs import TINY
from tests.processes import descendants, left_of

pytestmark = pytest.mark.long

SWEEP = [
    sys.executable,
    "-m",
    "flows.sweep",
    *(word.replace("--", "--base.", 1) for word in TINY if "predict" not in word),
    "--vary.train.base_learning_rate=0.001,0.002,0.005,0.01,0.02,0.05",
    "--vary.train.seed=1,2",
    "--concurrency=2",
    "--base.store=store",
]


def _trained(store: Path) -> list[str]:
    """The key of every training that was started, from the logs of the trials."""
    return [
        log.stem.partition("-")[0]
        for log in (store / "sweeps").glob("*.log")
        for _ in re.findall(r"train runs because (?!it is unfinished)", log.read_text())
    ]


def _finished(store: Path) -> set[str]:
    return {manifest.parent.name for manifest in store.glob("train/*/manifest.json")}


@pytest.mark.timeout(1500)
def test_a_killed_sweep_trains_exactly_what_is_missing(tmp_path: Path, flow_environment: dict[str, str]) -> None:
    store = tmp_path / "store"
    first = subprocess.Popen(SWEEP, cwd=tmp_path, env=flow_environment, text=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while len(_finished(store)) < 6:
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.5)
    family = descendants(first.pid)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert left_of(family, 60) == []

    before, started = _finished(store), _trained(store)
    assert 6 <= len(before) < 12
    second = subprocess.run(SWEEP, cwd=tmp_path, env=flow_environment, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr[-3000:]
    table = second.stdout.splitlines()
    scores = [float(found[1]) for line in table if (found := re.search(r"  ([\d.]+) %  done$", line))]
    assert len(scores) == 12 and scores == sorted(scores, reverse=True)
    assert any(line.startswith("best checkpoint  store/archive/") for line in table)
    assert len(_finished(store)) == 12
    again = _trained(store)
    for key in started:
        again.remove(key)
    assert not set(again) & before, "what was finished is not trained again"
    assert set(again) | before | set(started) == _finished(store)


@pytest.mark.timeout(600)
def test_a_hopeless_training_is_given_up(tmp_path: Path, flow_environment: dict[str, str]) -> None:
    words = [word.replace("number_of_steps=2", "number_of_steps=400") for word in SWEEP if "vary" not in word]
    vary = ["--vary.train.base_learning_rate=0.01,30", "--give_up_after=20", "--give_up_ratio=1.5"]
    done = subprocess.run(
        [*words, *vary], cwd=tmp_path, env=flow_environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert re.search(r"base_learning_rate=30 .*given up loss .* at step 20", done.stdout), done.stdout
