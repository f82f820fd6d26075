"""Registering against a real server: what the run form gets, what it refuses, and what a second time changes."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from deployments.project_file import FILE, ROOT
from flows.parameters import SECTIONS, TrainFlowParameters
from tests import prefect_server

# A server that is busy with other work may refuse what plain requests ask.
pytestmark = pytest.mark.timed
TRIGGER = "DeepLab: a new network is applied"
Server = tuple[httpx.Client, dict[str, str]]


def _register(environment: dict[str, str], file: Path = FILE) -> str:
    words = [sys.executable, "-m", "deployments.register", f"--file={file}"]
    result = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with prefect_server.running(tmp_path_factory.mktemp("prefect")) as running:
        environment = {**running.environment, "PYTHONPATH": str(ROOT)}
        printed = _register(environment)
        assert "train/train-local" in printed
        with httpx.Client(base_url=environment["PREFECT_API_URL"], timeout=30) as client:
            yield client, environment


@pytest.fixture(scope="module")
def client(server: Server) -> httpx.Client:
    return server[0]


def _deployment(client: httpx.Client, name: str = "train/train-local") -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/deployments/name/{name}").raise_for_status().json()
    return found


def _field(schema: dict[str, Any], section: str | None, name: str) -> dict[str, Any]:
    model = f"{section.capitalize()}Section" if section else "TrainFlowParameters"
    found: dict[str, Any] = schema["definitions"][model]["properties"][name]
    return found


def test_every_field_reaches_the_run_form(client: httpx.Client) -> None:
    schema = _deployment(client)["parameter_openapi_schema"]
    models = {None: TrainFlowParameters, **SECTIONS}
    for section, model in models.items():
        own = model.model_json_schema()["properties"]
        for name, info in model.model_fields.items():
            there = _field(schema, section, name)
            if "$ref" not in json.dumps(there):
                assert there["description"] == info.description, f"{section}.{name}"
            for word in ("enum", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "pattern", "minItems"):
                assert json.dumps(there).count(f'"{word}"') == json.dumps(own[name]).count(f'"{word}"'), name


def test_bounds_and_choices_are_those_of_the_configuration(client: httpx.Client) -> None:
    schema = _deployment(client)["parameter_openapi_schema"]
    assert "demo" in _field(schema, None, "preset")["enum"]
    assert _field(schema, None, "backend")["enum"] == ["local", "valohai"]
    assert _field(schema, "train", "train_batch_size")["minimum"] == 1
    assert _field(schema, "train", "output_stride")["enum"] == [8, 16, 32]
    assert "xception_65" in _field(schema, "train", "model_variant")["enum"]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"preset": "dmo"}, "parameters.preset"),
        ({"train": {"train_batch_size": 0}}, "train_batch_size"),
        ({"train": {"train_batch": 3}}, "train_batch"),
        ({"train": {"model_variant": "vgg"}}, "model_variant"),
        ({"train": {"train_crop_size": [65]}}, "train_crop_size"),
        ({"evaluate": {"eval_scales": "wide"}}, "evaluate"),
        ({"fetch": {"sha256": "abc"}}, "sha256"),
        ({"backend": "moon"}, "backend"),
    ],
)
def test_bad_values_make_no_run(client: httpx.Client, values: dict[str, Any], named: str) -> None:
    found = _deployment(client)["id"]
    before = client.post("/flow_runs/count", json={}).json()
    answer = client.post(f"/deployments/{found}/create_flow_run", json={"parameters": {"parameters": values}})
    assert answer.status_code == 409
    assert named in answer.json()["detail"]
    assert client.post("/flow_runs/count", json={}).json() == before


def test_limits_tags_and_schedules(client: httpx.Client) -> None:
    found = _deployment(client)
    assert found["tags"] == ["deeplab", "training", "local"]
    assert found["global_concurrency_limit"]["limit"] == 1
    assert found["concurrency_options"]["collision_strategy"] == "ENQUEUE"
    assert [schedule["active"] for schedule in found["schedules"]] == [False]
    assert (
        found["pull_steps"][0]["prefect.deployments.steps.set_working_directory"]["directory"] == "{{ $DEEPLAB_HOME }}"
    )
    pool = client.get("/work_pools/deeplab").json()
    assert (pool["type"], pool["concurrency_limit"]) == ("process", 6)
    assert client.get("/v2/concurrency_limits/deeplab-gpu").json()["limit"] == 1


def test_block_types_are_there(client: httpx.Client) -> None:
    for slug in ("azure-storage", "valohai-credentials"):
        assert client.get(f"/block_types/slug/{slug}").status_code == 200


def test_a_second_time_keeps_what_a_person_has_switched(server: Server) -> None:
    client, environment = server
    before = _deployment(client)
    (schedule,) = before["schedules"]
    switch = client.patch(f"/deployments/{before['id']}/schedules/{schedule['id']}", json={"active": True})
    switch.raise_for_status()
    client.patch("/v2/concurrency_limits/deeplab-gpu", json={"limit": 2}).raise_for_status()
    automations = client.post("/automations/filter", json={}).json()
    client.patch(f"/automations/{automations[0]['id']}", json={"enabled": False}).raise_for_status()
    printed = _register(environment)
    assert printed.count("as it was") == 5  # the work pool, the limit of trainings and three automations
    assert client.get("/v2/concurrency_limits/deeplab-gpu").json()["limit"] == 2
    after = _deployment(client)
    assert after["id"] == before["id"]
    assert [schedule["active"] for schedule in after["schedules"]] == [True]
    again = client.post("/automations/filter", json={}).json()
    assert {row["id"]: row["enabled"] for row in again} == {
        row["id"]: row["enabled"] and row["id"] != automations[0]["id"] for row in automations
    }


def test_a_deployment_without_its_flow_is_left_out_and_said(server: Server, tmp_path: Path) -> None:
    content = yaml.safe_load(FILE.read_text())
    entry = {**content["deployments"][0], "name": "later", "entrypoint": "flows/later.py:later"}
    (tmp_path / "prefect.yaml").write_text(yaml.safe_dump({**content, "deployments": [entry]}))
    printed = _register(server[1], tmp_path / "prefect.yaml")
    assert "later: left out: there is no flows/later.py" in printed


def test_a_new_network_starts_batch_inference_with_what_its_deployment_has_and_the_graph(server: Server) -> None:
    client, _ = server
    rows = {row["name"]: row for row in client.post("/automations/filter", json={}).json()}
    (action,) = rows[TRIGGER]["actions"]
    assert action["deployment_id"] == _deployment(client, "batch-inference/batch-inference")["id"]
    assert action["parameters"] == {"model": "{{ event.payload.graph }}"}
