"""Runs of the training deployment of which one process is killed in the middle of a stage, and what they leave."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from deployments.project_file import FILE, ROOT
from tests import prefect_server
from tests.azurite import Azurite
from tests.faulty_proxy import FaultyProxy, in_front_of
from tests.integration.deployed_runs import TINY, Runs, Worker, client_of, wait_for
from tests.prefect_server import PrefectServer
from tests.processes import that_mention

MIB = 1 << 20
STAGES = ("fetch", "convert", "train", "archive", "evaluate", "export", "predict")
STEPS = 150
_VALUES = {
    "preset": "demo",
    "convert": {"num_shards": 8, "num_threads": 1, "validation": "decode"},
    "train": {**TINY["train"], "training_number_of_steps": STEPS, "save_interval_steps": 20},
    "predict": {"max_images": 1},
}
# So many training pairs that fetching and converting last long enough to be in the middle of.
_PAIRS = 4000
# The step, well behind the checkpoint of step 40, at which training is broken off.
_TRAINED = 55
# Bytes of the archive that have come when its fetching is broken off, and bytes a second of each of its streams.
_FETCHED, _RATE = 24 * MIB, 4 * MIB


@dataclass
class Lab:
    """Where the runs are.

    Attributes:
        server: Prefect's server.
        worker: what starts the runs.
        runs: what the API tells of them.
        proxy: what they fetch their data set through.
        source: its address.
        size: its bytes.
    """

    server: PrefectServer
    worker: Worker
    runs: Runs
    proxy: FaultyProxy
    source: str
    size: int

    def start(self, store: Path) -> str:
        """Start a run; its id."""
        return self.runs.start({**_VALUES, "store": str(store), "fetch": {"source": self.source}})

    def state(self, run: str) -> str:
        return str(self.runs.run(run)["state"]["type"])

    def wait_for_end(self, run: str) -> None:
        """Wait until a run is completed, and all its processes are gone."""
        wait_for(lambda: self.state(run) == "COMPLETED", 600, 0.2)
        wait_for(lambda: not that_mention(run), 20)


@contextmanager
def open_lab(folder: Path, azurite: Azurite) -> Iterator[Lab]:
    """A server with the deployments, a worker and a data set, until the end of the block."""
    content = _data_set(folder)
    container = azurite.create_container(public=True)
    azurite.upload(container, "sample.zip", content)
    with in_front_of(azurite.endpoint) as proxy, prefect_server.running(folder / "prefect") as server:
        environment = {**server.environment, "DEEPLAB_HOME": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"}
        register = [sys.executable, "-m", "deployments.register", f"--file={_deployments(folder)}"]
        subprocess.run(register, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, check=True)
        worker = Worker(environment, folder / "worker.txt")
        try:
            with client_of(environment["PREFECT_API_URL"]) as client:
                source = f"{proxy.endpoint}/{container}/sample.zip"
                yield Lab(server, worker, Runs(client), proxy, source, len(content))
        finally:
            worker.stop()


def _deployments(folder: Path) -> Path:
    """The training alone: no network that it makes is applied meanwhile."""
    content = yaml.safe_load(FILE.read_text())
    file = folder / "prefect.yaml"
    kept = [entry for entry in content["deployments"] if entry["name"] == "train-local"]
    file.write_text(yaml.safe_dump({**content, "deployments": kept}))
    return file


def _data_set(folder: Path) -> bytes:
    """A drawn data set with each of its training pairs many times over."""
    words = ["deeplab", "sample", "--size=16", "--output_path=sample.zip"]
    subprocess.run([sys.executable, "-m", *words], cwd=folder, capture_output=True, check=True)
    content = io.BytesIO()
    with zipfile.ZipFile(folder / "sample.zip") as drawn, zipfile.ZipFile(content, "w") as target:
        for name in drawn.namelist():
            for number in range(_PAIRS // 16 if "training" in name else 1):
                target.writestr(name.replace("_0000", f"_{number:04d}"), drawn.read(name))
    return content.getvalue()


@dataclass(frozen=True)
class Broken:
    """A run of which a process was killed.

    Attributes:
        run: its id.
        store: its store.
        killed: what was killed.
        during: the stage in whose middle that was.
        at: when, seconds since the epoch.
        whole: files that were whole then -> their times of change.
        begun: shards of the records that were being written.
        step: the last step of the training that was told; 0: none.
        sent: bytes that had been fetched for earlier runs.
    """

    run: str
    store: Path
    killed: str
    during: str
    at: float
    whole: dict[Path, int]
    begun: int
    step: int
    sent: int

    def log(self) -> str:
        """Every line that the stage printed, over all its attempts."""
        (path,) = (self.store / self.during).glob("*.log")
        return path.read_text()


def break_off(lab: Lab, store: Path, killed: str, during: str) -> Broken:
    """Start a run, and kill one of its processes in the middle of a stage."""
    sent = lab.proxy.sent
    lab.proxy.rate = _RATE if during == "fetch" else None
    run = lab.start(store)
    middle: dict[str, Callable[[], Any]] = {
        "fetch": lambda: lab.proxy.sent - sent >= _FETCHED,
        "convert": lambda: list(store.glob("convert/*/.train-*.done")) and list(store.glob("convert/*/.tmp-train-*")),
        "train": lambda: last_step(store) >= _TRAINED,
        "export": lambda: list(store.glob("export/*/.*.made.json")),
    }
    wait_for(middle[during], 300, 0.01)
    flow, stage = _processes(run, store, during)
    begun = len(list(store.glob("convert/*/.tmp-*")))
    at = time.time()
    if killed == "server":
        lab.server.kill()
    elif killed == "worker":
        lab.worker.kill()
    else:
        os.kill(flow if killed == "flow" else stage, signal.SIGKILL)
    lab.proxy.rate = None
    assert not list(store.glob(f"{during}/*/*manifest.json")), "the stage was done before the kill"
    whole = [*store.rglob("*manifest.json"), *(_shard(done) for done in store.glob("convert/*/.*.done"))]
    times = {path: path.stat().st_mtime_ns for path in whole}
    return Broken(run, store, killed, during, at, times, begun, last_step(store), sent)


def _processes(run: str, store: Path, stage: str) -> tuple[int, int]:
    """The flow's process and its stage's."""
    (flow,) = that_mention(f"PREFECT__FLOW_RUN_ID={run}")
    (child,) = (pid for pid, line in that_mention(str(store)).items() if f"-m deeplab {stage} " in line)
    return flow, child


def _shard(done: Path) -> Path:
    return done.with_name(done.name.removeprefix(".").removesuffix(".done"))


def last_step(store: Path) -> int:
    """The last step that a training has told; 0: none."""
    lines = [line for log in store.glob("train/*.log") for line in log.read_text().splitlines()]
    return max((json.loads(line)["step"] for line in lines if re.fullmatch(r'{"step".*}', line)), default=0)


def checkpoints(store: Path) -> dict[int, float]:
    """Step -> when its checkpoint was written, seconds since the epoch."""
    found = store.glob("train/*/model.ckpt-*.index")
    return {int(path.stem.rpartition("-")[2]): path.stat().st_mtime for path in found}


def digests(store: Path) -> dict[str, str]:
    """Stage and key -> digest of its products."""
    return {
        str(path.parent.relative_to(store)): json.loads(path.read_text())["digest"]
        for stage in STAGES
        for path in store.glob(f"{stage}/*/*manifest.json")
    }
