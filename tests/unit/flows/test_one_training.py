"""The limit of trainings at once: a training waits for its place, what needs none does not, and it is given back."""

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from deeplab.config import validate
from deeplab.errors import DataError
from deployments.gpu_limit import register_gpu_limit
from flows.parameters import TrainFlowParameters
from flows.train import train_flow
from tasks.gpu import LIMIT

pytestmark = pytest.mark.usefixtures("api")


@pytest.fixture
def client(api, monkeypatch):
    monkeypatch.setattr("tasks.gpu._LOOK", 0.1)
    with get_client(sync_client=True) as client:
        assert register_gpu_limit(client) == "made"
        yield client
        client.delete_global_concurrency_limit_by_name(LIMIT)


@pytest.fixture
def run(tmp_path, calls):
    def start(**sections):
        given = {"preset": "demo", "store": str(tmp_path / "store"), **sections}
        return train_flow(validate(TrainFlowParameters, given))

    return start


def _taken(client):
    return client.read_global_concurrency_limit_by_name(LIMIT).active_slots


def _take(client):
    answer = client.increment_concurrency_slots_with_lease([LIMIT], 1, "concurrency", lease_duration=60)
    return answer.json()["lease_id"]


@contextmanager
def _once_it_waits(caplog, act):
    """Do something in the middle of the block, when a run says that it waits."""
    done = []

    def watch():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if "waiting for the GPU: the limit deeplab-gpu is reached" in caplog.text:
                done.append(act())
                return
            time.sleep(0.05)

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield
    watcher.join()
    assert done, "it did not wait"


def test_a_training_waits_for_its_turn_and_gives_it_back(client, run, calls, caplog):
    other = _take(client)
    seen = []

    def act():
        seen.extend(calls())
        client.release_concurrency_slots_with_lease(other)

    with _once_it_waits(caplog, act):
        run()
    assert seen == ["sample", "fetch", "convert"], "what comes before the training went on"
    assert calls()[0] == "train"
    assert _taken(client) == 0


def test_a_checkpoint_that_changes_while_its_training_waits_is_not_taken_for_the_old_one(client, run, tmp_path, caplog):
    checkpoint, other = tmp_path / "init.ckpt.index", _take(client)
    checkpoint.write_text("old")

    def act():
        checkpoint.write_text("newer")
        client.release_concurrency_slots_with_lease(other)

    wanted = {"tf_initial_checkpoint": str(tmp_path / "init.ckpt")}
    with (
        _once_it_waits(caplog, act),
        pytest.raises(DataError, match=r"init.ckpt has changed since .* run it again"),
    ):
        run(train=wanted)
    run(train=wanted)
    assert _taken(client) == 0


def test_what_is_reused_needs_no_place(client, run, calls):
    run()
    calls()
    _take(client)
    run()
    assert calls() == [] and _taken(client) == 1


@pytest.mark.parametrize("name", ["a limit that nobody made", ""])
def test_another_machine_has_a_limit_of_its_own_or_none(client, run, calls, monkeypatch, name):
    _take(client)
    monkeypatch.setenv("DEEPLAB_GPU", name)
    run()
    assert "train" in calls() and _taken(client) == 1


def test_a_failed_training_gives_its_place_back(client, run, monkeypatch):
    monkeypatch.setenv("FAKE_STAGE_FAILS", "train")
    with pytest.raises(Exception, match="ran out of luck"):
        run()
    assert _taken(client) == 0


def test_a_person_changes_the_limit_and_it_stays(client, run, caplog):
    client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=0))
    assert register_gpu_limit(client) == "as it was"

    def act():
        client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(limit=2))

    with _once_it_waits(caplog, act):
        run()
    assert register_gpu_limit(client) == "as it was"
    assert client.read_global_concurrency_limit_by_name(LIMIT).limit == 2


def test_the_embedded_api_keeps_nobody_waiting(tmp_path):
    """Its leases end with it: a killed run's place would never be free again. Nor do a sweep's trials wait."""
    script = """
from prefect.client.orchestration import get_client
from deeplab.errors import DataError
from deployments.gpu_limit import register_gpu_limit
from flows import console
from flows.children import _api
from tasks.gpu import LIMIT, one_training

console.start_api()
with get_client(sync_client=True) as client:
    register_gpu_limit(client)
    client.increment_concurrency_slots([LIMIT], 1, "concurrency")
    with one_training():
        print(client.read_global_concurrency_limit_by_name(LIMIT).active_slots)
print(repr(_api()["DEEPLAB_GPU"]))
"""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment = {**kept, "PREFECT_HOME": str(tmp_path), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n''\n"), done.stderr
