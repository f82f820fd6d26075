"""One GPU, runs of two flows that train at once, and what becomes of the GPU when one of them is stopped or killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import prefect_server
from tests.integration.conftest import ROOT
from tests.integration.remote_runs import TINY
from tests.processes import descendants, left_of

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(600)]
Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts flows with a server that has everything registered; what one prints goes to ``NAME.txt``."""
    started = []
    with prefect_server.running(tmp_path / "prefect") as server:
        environment = {**server.environment, "PYTHONPATH": str(ROOT)}
        words = [sys.executable, "-m", "deployments.register"]
        subprocess.run(words, cwd=ROOT, env=environment, check=True, stdout=subprocess.DEVNULL)

        def start(name: str, flow: str, steps: int) -> subprocess.Popen[bytes]:
            flags = [*TINY, f"--train.training_number_of_steps={steps}", f"--store={name}"]
            with (tmp_path / f"{name}.txt").open("ab") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", flow, *flags], cwd=tmp_path, env=environment, stdout=output, stderr=output
                )
            started.append(process)
            return process

        yield start
        for process in started:
            process.kill()
            process.wait()


def _until(condition: Callable[[], bool], seconds: float) -> float:
    """Seconds that it took."""
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds
        time.sleep(0.2)
    return time.monotonic() - begun


def test_a_killed_training_gives_the_gpu_back(start: Start, tmp_path: Path) -> None:
    def says(name: str, text: str) -> Callable[[], bool]:
        return lambda: text in (tmp_path / f"{name}.txt").read_text()

    first = start("first", "flows.train", steps=1_000_000)
    _until(lambda: any(tmp_path.glob("first/train/*/metrics.jsonl")), 120)
    family = descendants(first.pid)

    second = start("second", "flows.trial", steps=2)
    _until(says("second", "waiting for the GPU: the limit deeplab-gpu is reached"), 120)
    assert not any(tmp_path.glob("second/train/*/metrics.jsonl"))
    second.send_signal(signal.SIGTERM)
    assert second.wait(15) == 143, "it does not stop while it waits"

    third = start("third", "flows.trial", steps=2)
    _until(says("third", "waiting for the GPU"), 120)
    assert not any(tmp_path.glob("third/train/*/metrics.jsonl"))
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    # The lease of a minute, the quarter of one between two looks of the server, and ours.
    _until(lambda: any(tmp_path.glob("third/train/*/metrics.jsonl")), 120)
    assert left_of(family, 0) == [], "both trained at once"
    assert third.wait(120) == 0
