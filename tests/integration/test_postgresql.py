"""Two workers and a server on PostgreSQL: they share the work, and never do the same twice."""

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deployments.project_file import FILE, ROOT
from tests import postgresql, prefect_server
from tests.integration.deployed_runs import Runs, Worker, client_of, tiny, wait_for
from tests.processes import descendants, left_of, that_mention

pytestmark = [postgresql.needs_postgresql, pytest.mark.chaos, pytest.mark.timeout(900)]
STAGES = ("sample", "fetch", "convert", "train", "archive", "evaluate", "export", "predict")
# What docs/deployments.md gives each machine: a limit for its GPU.
GPUS = {"one": "deeplab-gpu", "two": "deeplab-gpu-two"}


@dataclass
class Lab(Runs):
    """A server with two workers, each with a GPU of its own and a place for one run."""

    environment: Mapping[str, str]
    folder: Path
    workers: dict[str, Worker]

    def start_worker(self, name: str) -> None:
        environment = {**self.environment, "DEEPLAB_GPU": GPUS[name]}
        self.workers[name] = Worker(environment, self.folder / f"{name}.txt", f"--name={name}", "--limit=1")

    def has_started(self, name: str) -> bool:
        return "started!" in self.workers[name].log.read_text()

    def worker_of(self, run: str) -> str:
        """The worker that took a run. Both may ask for it at once; the server then turns one away."""
        logs = {name: " ".join(worker.log.read_text().split()) for name, worker in self.workers.items()}
        turned_away = f"Aborted submission of flow run '{run}'"
        (name,) = [name for name, log in logs.items() if run in log and turned_away not in log]
        return name

    def train(self, store: Path, steps: int = 3) -> str:
        return self.start(tiny(store, train={"training_number_of_steps": steps}))


@contextmanager
def _environment(folder: Path) -> Iterator[dict[str, str]]:
    """Of a server with everything registered as for two machines."""
    content = yaml.safe_load(FILE.read_text())
    for entry in content["deployments"]:
        if entry["name"] == "train-local":
            entry["concurrency_limit"] = {"limit": 2}
    (folder / "prefect.yaml").write_text(yaml.safe_dump(content))
    with postgresql.running() as address:
        settings = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": address}
        with prefect_server.running(folder / "prefect", settings) as server:
            environment = {**server.environment, "DEEPLAB_HOME": str(ROOT), "PYTHONPATH": str(ROOT)}
            for words in (
                ["deployments.register", f"--file={folder / 'prefect.yaml'}"],
                ["prefect", "global-concurrency-limit", "create", GPUS["two"], "--limit=1"],
            ):
                subprocess.run([sys.executable, "-m", *words], cwd=ROOT, env=environment, check=True)
            yield environment


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    with _environment(folder) as environment:
        with client_of(environment["PREFECT_API_URL"]) as client:
            lab = Lab(client, environment, folder, {})
            try:
                for name in GPUS:
                    lab.start_worker(name)
                wait_for(lambda: all(lab.has_started(name) for name in GPUS))
                yield lab
            finally:
                for worker in lab.workers.values():
                    _end(worker)


def _end(worker: Worker) -> None:
    family = descendants(worker.process.pid)
    worker.stop()
    assert left_of(family, 30) == []


def _digests(store: Path) -> dict[str, Any]:
    """Stage -> digest of its products."""
    return {path.relative_to(store).parts[0]: json.loads(path.read_text())["digest"] for path in _manifests(store)}


def _manifests(store: Path) -> list[Path]:
    return [path for stage in STAGES for path in store.glob(f"{stage}/*/*manifest.json")]


def test_two_runs_at_once_have_a_worker_each_and_equal_products(lab: Lab, tmp_path: Path) -> None:
    stores = [tmp_path / name for name in ("one", "two")]
    runs = [lab.train(store) for store in stores]
    wait_for(lambda: lab.completed(*runs), 400)
    assert {lab.worker_of(run) for run in runs} == set(GPUS)
    first, second = (lab.run(run) for run in runs)
    assert max(first["start_time"], second["start_time"]) < min(first["end_time"], second["end_time"])
    digests = _digests(stores[0])
    assert set(digests) == set(STAGES) and digests == _digests(stores[1])


def test_equal_runs_at_once_do_each_stage_once(lab: Lab, tmp_path: Path) -> None:
    runs = [lab.train(tmp_path / "store") for _ in range(2)]
    wait_for(lambda: lab.completed(*runs), 400)
    assert {lab.worker_of(run) for run in runs} == set(GPUS)
    # A process hands its last lines over when it ends.
    wait_for(lambda: not any(that_mention(run) for run in runs), 30)
    lines = [line for run in runs for line in lab.log(run)]
    assert any("waiting for another run that works on it" in line for line in lines), "they did not meet"
    for stage in STAGES:
        assert len([line for line in lines if line.startswith(f"{stage} runs because")]) == 1
        assert len([line for line in lines if line.startswith("reused ") and f"/store/{stage}/" in line]) == 1
    assert len(_manifests(tmp_path / "store")) == len(STAGES)


def test_a_killed_worker_disturbs_no_run(lab: Lab, tmp_path: Path) -> None:
    stores = {lab.train(tmp_path / name, steps=200): tmp_path / name for name in ("a", "b")}
    wait_for(lambda: all(list(store.glob("train/*/metrics.jsonl")) for store in stores.values()))
    assert {lab.worker_of(run) for run in stores} == set(GPUS)
    lab.workers["one"].kill()
    wait_for(lambda: lab.completed(*stores), 400)
    lab.start_worker("one")
    first, second = stores.values()
    assert _digests(first) == _digests(second)
