"""Our own ``valohai.yaml``, driven by the real ``vh`` against the local server."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deeplab.cli import main
from tests.conftest import needs_program
from tests.valohai_server.process import ROOT, ServerProcess, running

pytestmark = [
    pytest.mark.long,
    needs_program("vh", "pip install valohai-cli==0.37.0"),
]
Vh = Callable[..., str]
TINY = {
    "dataset": "sample",
    "model_variant": "mobilenet_v2",
    "depth_multiplier": "0.1",
    "aspp_convs_filters": "8",
    "decoder_filters": "8",
    "atrous_rates": "6",
    "train_crop_size": "65,65",
    "train_batch_size": "2",
    "training_number_of_steps": "2",
    "min_resize_value": "65",
    "max_resize_value": "65",
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(tmp_path_factory.mktemp("valohai") / "data") as process:
        yield process


@pytest.fixture(scope="module")
def vh(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> Vh:
    config = tmp_path_factory.mktemp("config")
    environment = {**os.environ, **server.variables, "VALOHAI_CONFIG_DIR": str(config), "NO_COLOR": "1"}

    def run(*arguments: str) -> str:
        result = subprocess.run(
            ["vh", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    return run


@pytest.fixture(scope="module")
def scenes(server: ServerProcess, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("scenes") / "scenes.zip"
    assert main(["sample", f"--output_path={path}", "--size=4"]) == 0
    return server.upload("scenes.zip", path.read_bytes())


def _final(server: ServerProcess, kind: str, identity: str) -> dict[str, Any]:
    """A finished object, by its id or ``latest``."""
    if identity == "latest":
        identity = f"{server.project}:latest"
    deadline = time.monotonic() + 300
    with server.client() as client:
        while True:
            record = client.get(f"/{kind}/{identity}/").raise_for_status().json()
            if record["status"] in ("complete", "error", "crashed", "stopped"):
                return record
            assert time.monotonic() < deadline, record["status"]
            time.sleep(0.5)


def _complete(server: ServerProcess, identity: str) -> dict[str, str]:
    """Name -> ``datum://`` of the outputs of an execution that must have gone well."""
    execution = _final(server, "executions", identity)
    with server.client() as client:
        log = client.get(f"/executions/{execution['id']}/events/", params={"limit": 0}).json()["events"]
    assert execution["status"] == "complete", "\n".join(event["message"] for event in log[-20:])
    return {output["name"]: f"datum://{output['id']}" for output in execution["outputs"]}


def _content(server: ServerProcess, link: str) -> bytes:
    """The bytes of a ``datum://``."""
    with server.client() as client:
        url = client.get(f"/data/{link.removeprefix('datum://')}/download/").raise_for_status().json()["url"]
        return client.get(url).raise_for_status().content


@pytest.mark.timeout(900)
def test_steps_as_the_original_project_ran_them(server: ServerProcess, vh: Vh, scenes: str, tmp_path: Path) -> None:
    vh("exec", "run", "load", "--adhoc", f"--ADE20K={scenes}", "--dataset=sample")
    records = _complete(server, "latest")
    assert set(records) == {"tfrecords.tar.gz", "manifest.json"}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]
    vh("exec", "run", "train", "--adhoc", f"--tfrecords={records['tfrecords.tar.gz']}", *flags)
    trained = _complete(server, "latest")
    assert {"checkpoints.tar.gz", "checkpoint-2.tar", "model.json", "metrics.jsonl", "train.manifest.json"} <= set(
        trained
    )
    with server.client() as client:
        latest = client.get(f"/executions/{server.project}:latest/").json()
    assert latest["cumulative_metadata"]["step"] == 2
    # More steps go on from the checkpoints of an earlier execution.
    more = [flag for flag in flags if "number-of-steps" not in flag] + ["--training-number-of-steps=3"]
    given = [f"--tfrecords={records['tfrecords.tar.gz']}", f"--checkpoints={trained['checkpoint-2.tar']}"]
    vh("exec", "run", "train", "--adhoc", *given, *more)
    longer = _complete(server, "latest")
    with server.client() as client:
        latest = client.get(f"/executions/{server.project}:latest/").json()
        events = client.get(f"/executions/{latest['id']}/events/", params={"limit": 0}).json()["events"]
    assert any("resuming from model.ckpt-2 at step 2" in event["message"] for event in events)
    points = [json.loads(line) for line in _content(server, longer["metrics.jsonl"]).decode().splitlines()]
    assert points[-1]["step"] == 3
    vh("exec", "run", "export", "--adhoc", f"--checkpoints={longer['checkpoints.tar.gz']}")
    exported = _complete(server, "latest")
    assert set(exported) == {"frozen_graph", "frozen_graph.model.json", "frozen_graph.manifest.json"}
    # The same export here has the same digest.
    (tmp_path / "checkpoints.tar.gz").write_bytes(_content(server, longer["checkpoints.tar.gz"]))
    graph = tmp_path / "frozen_inference_graph.pb"
    assert main(["export", f"--checkpoint_path={tmp_path / 'checkpoints.tar.gz'}", f"--export_path={graph}"]) == 0
    remote = json.loads(_content(server, exported["frozen_graph.manifest.json"]))
    local = json.loads(graph.with_name(f"{graph.name}.manifest.json").read_text())
    assert remote["digest"] == local["digest"]
    assert [output["path"] for output in remote["outputs"]] == [output["path"] for output in local["outputs"]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["convert", "full"])
def test_pipelines(server: ServerProcess, vh: Vh, scenes: str, name: str) -> None:
    flags = [f"--train-node.{flag}={value}" for flag, value in TINY.items()]
    vh("pipeline", "run", "--adhoc", name, f"--load-node.ADE20K={scenes}", "--load-node.dataset=sample", *flags)
    pipeline = _final(server, "pipelines", "latest")
    outputs = {
        node["name"]: _complete(server, node["execution"]["id"]) for node in pipeline["nodes"] if node.get("execution")
    }
    assert pipeline["status"] == "complete", json.dumps(pipeline["log"], indent=1)
    assert "frozen_graph" in outputs["export-node"]
    if name == "full":
        assert {"results.json", "sheet.png"} <= set(outputs["evaluate-node"])
        assert "masks.tar" in outputs["predict-node"]
