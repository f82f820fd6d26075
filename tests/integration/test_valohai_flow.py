"""The flow with its stages as executions: equal products, one execution a stage whatever happens, a stop that stops."""

import contextlib
import itertools
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import httpx
import pytest

from tests import prefect_server
from tests.azurite import Azurite, needs_azurite
from tests.integration.remote_runs import PATIENCE, STEPS, Lab, kill
from tests.valohai_server.process import ServerProcess, running

pytestmark = [pytest.mark.long, needs_azurite, pytest.mark.timeout(900)]
ALL = "--backend=valohai"


@pytest.fixture(scope="module")
def server(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    data = tmp_path_factory.mktemp("valohai") / "data"
    with running(data, "--grace=5", f"--azure=devstoreaccount1={azurite.endpoint}") as process:
        yield process


@pytest.fixture
def lab(server: ServerProcess, azurite: Azurite, tmp_path: Path) -> Iterator[Lab]:
    yield Lab.make(server, azurite, tmp_path)
    server.clear_faults()


def _digests(server: ServerProcess, azurite: Azurite, folder: Path, remote: Collection[str]) -> dict[str, str]:
    folder.mkdir()
    lab = Lab.make(server, azurite, folder)
    result = lab.run(*(f"--{stage}.backend=valohai" for stage in remote))
    assert result.returncode == 0, result.stdout + result.stderr
    assert Counter(row["step"] for row in lab.executions()) == Counter(STEPS[stage] for stage in remote)
    return lab.digests()


def test_products_are_the_same_wherever_stages_run(server: ServerProcess, azurite: Azurite, tmp_path: Path) -> None:
    choices = [(), tuple(STEPS), ("convert", "evaluate"), ("train", "export", "predict")]
    digests = [_digests(server, azurite, tmp_path / str(number), remote) for number, remote in enumerate(choices)]
    assert set(digests[0]) == {*STEPS, "archive"}
    assert all(other == digests[0] for other in digests)


@pytest.mark.chaos
@pytest.mark.timeout(7200)
def test_every_choice_of_places(server: ServerProcess, azurite: Azurite, tmp_path: Path) -> None:
    digests = {}
    for bits in itertools.product((False, True), repeat=4):
        remote = tuple(stage for stage, there in zip(STEPS, bits, strict=False) if there)
        digests[remote] = _digests(server, azurite, tmp_path / "-".join(("run", *remote)), remote)
    assert len(digests) == 16
    assert all(other == digests[()] for other in digests.values())


def _lose_answers(lab: Lab) -> None:
    lab.server.fault("lost-answer", "POST .*/executions/$", count=3)


def _storm(lab: Lab) -> None:
    lab.server.fault("429", ".", count=60, retry_after=0.3)
    lab.server.fault("503", "/executions/", count=4)


def _restart(lab: Lab) -> None:
    lab.wait_for(lambda: lab.execution("train"))
    lab.server.restart()


def _cut_the_network(lab: Lab) -> None:
    lab.wait_for(lambda: lab.execution("train"))
    lab.server.fault("refuse", "/api/", count=-1, seconds=30)


FAULTS: dict[str, Callable[[Lab], None]] = {
    "nothing": lambda lab: None,
    "lost answers": _lose_answers,
    "storm": _storm,
    "restart": _restart,
    "no network": _cut_the_network,
}


def _run_with_kills(lab: Lab, kills: int, fault: Callable[[Lab], None]) -> None:
    """Run the flow to its end, killing it at random moments, while something fails."""
    moments = random.Random(f"{fault.__name__} {kills}")
    for attempt in range(kills):
        flow = lab.start(ALL)
        if attempt == 0:
            fault(lab)
        with contextlib.suppress(subprocess.TimeoutExpired):
            # Prefect's API takes four seconds to start, a stage five or more: any moment of the first stages.
            flow.wait(moments.uniform(5, 20))
        kill(flow)
    flow = lab.start(ALL)
    assert flow.wait(PATIENCE) == 0, (lab.folder / "flow.txt").read_text()[-5000:]
    lab.server.clear_faults()
    lab.check_once()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_kill_and_a_fault_lose_and_double_nothing(lab: Lab, fault: str) -> None:
    _run_with_kills(lab, 1, FAULTS[fault])


@pytest.mark.chaos
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("fault", FAULTS)
def test_ten_kills_and_a_fault_lose_and_double_nothing(lab: Lab, fault: str) -> None:
    _run_with_kills(lab, 10, FAULTS[fault])


def test_lost_machine_costs_no_more_than_the_steps_after_its_last_checkpoint(lab: Lab) -> None:
    steps = ["--train.training_number_of_steps=400", "--train.save_interval_steps=20", "--train.log_steps=20"]
    flow = lab.start(ALL, *steps)
    row = lab.wait_for(
        lambda: (row := lab.execution("train")) and sum(".tar" in name for name in lab.outputs(row)) > 1 and row
    )
    lab.server.lose(row["id"])
    assert flow.wait(120) == 1
    again = lab.run(ALL, *steps)
    output = again.stdout + again.stderr
    assert again.returncode == 0, output
    assert "resuming from model.ckpt-" in output
    assert [row["status"] for row in lab.executions() if row["step"] == STEPS["train"]] == ["crashed", "complete"]
    (metrics,) = lab.store.glob("train/*.valohai/metrics.jsonl")
    assert metrics.read_text().count("\n") == 400 // 20


def _stopped_within(lab: Lab, seconds: float) -> None:
    asked = time.monotonic()
    lab.wait_for(lambda: lab.execution("train")["status"] == "stopped", seconds)
    assert time.monotonic() - asked < seconds


@pytest.mark.timed
def test_ctrl_c_stops_the_execution(lab: Lab) -> None:
    flow = lab.start(ALL, "--train.training_number_of_steps=100000")
    lab.wait_for(lambda: (row := lab.execution("train")) and '"step"' in "".join(lab.events(row)))
    flow.send_signal(signal.SIGINT)
    _stopped_within(lab, 20)
    assert flow.wait(30) == 130
    text = (lab.folder / "flow.txt").read_text()
    assert "stopping execution" in text
    assert "stopped; the same command goes on from here" in text


@pytest.mark.timed
def test_cancel_of_a_served_flow_stops_the_execution(lab: Lab) -> None:
    with prefect_server.running(lab.folder / "prefect") as prefect, contextlib.ExitStack() as clients:
        environment = {**lab.environment, **prefect.environment}
        serving = "from flows.train import train_flow; train_flow.serve(name='here', print_starting_message=False)"
        with (lab.folder / "flow.txt").open("wb") as output:
            server = subprocess.Popen(
                [sys.executable, "-c", serving], cwd=lab.folder, env=environment, stdout=output, stderr=output
            )
        try:
            values = {
                "preset": "demo",
                "backend": "valohai",
                "store": f"az://{lab.container}/store",
                "sample": {"size": 8},
                "train": {"train_crop_size": [65, 65], "training_number_of_steps": 100000, "log_steps": 1},
            }
            client = clients.enter_context(httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=30))
            found = lab.wait_for(lambda: _deployment(client))
            body = {"parameters": {"parameters": values}, "state": {"type": "SCHEDULED"}}
            run = client.post(f"/deployments/{found}/create_flow_run", json=body).raise_for_status().json()["id"]
            lab.wait_for(lambda: (row := lab.execution("train")) and '"step"' in "".join(lab.events(row)))
            cancel = [sys.executable, "-m", "prefect", "flow-run", "cancel", run]
            subprocess.run(cancel, env=environment, check=True, capture_output=True)
            _stopped_within(lab, 20)
            lab.wait_for(lambda: client.get(f"/flow_runs/{run}").json()["state"]["type"] == "CANCELLED", 60)
            answer = client.post(
                "/logs/filter", json={"logs": {"flow_run_id": {"any_": [run]}}, "sort": "TIMESTAMP_DESC"}
            )
            assert any("stopping execution" in row["message"] for row in answer.raise_for_status().json())
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(30)


def _deployment(client: httpx.Client) -> str | None:
    answer = client.get("/deployments/name/train/here")
    return str(answer.json()["id"]) if answer.status_code == 200 else None


@pytest.mark.timed
def test_sigterm_leaves_the_execution_to_be_found_again(lab: Lab) -> None:
    flow = lab.start(ALL, "--train.training_number_of_steps=100000")
    row = lab.wait_for(lambda: (row := lab.execution("train")) and row["status"] == "started" and row)
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(60) == 143
    assert lab.execution("train")["status"] == "started"
    with lab.server.client() as client:
        client.post(f"/executions/{row['id']}/stop/").raise_for_status()
