"""Pipelines and tasks, posted as vh posts them (facts/valohai.md 7.3 and 8)."""

import time

import pytest

FINAL = ("complete", "error", "crashed", "stopped")


def node(driver, name, script="true", **fields):
    template = {"commit": driver.commit, "step": "Say", "inputs": {"data": []}, "parameters": {"script": script}}
    return {"name": name, "type": "execution", "template": template, **fields}


def edge(source, target):
    source_node, source_type, source_key = source.split(".", 2)
    target_node, target_type, target_key = target.split(".", 2)
    return {
        "source_node": source_node,
        "source_type": source_type,
        "source_key": source_key,
        "target_node": target_node,
        "target_type": target_type,
        "target_key": target_key,
    }


def run(driver, kind, body, wait=True):
    answer = driver.client.post(f"/{kind}/", json={"project": driver.server.project, **body})
    assert answer.status_code == 201, answer.text
    record, deadline = answer.json(), time.monotonic() + 30
    while wait and record["status"] not in FINAL:
        assert time.monotonic() < deadline, record
        time.sleep(0.05)
        record = driver.client.get(f"/{kind}/{record['id']}/").json()
    return record


def nodes(pipeline):
    return {node["name"]: node for node in pipeline["nodes"]}


def test_edges_carry_files_and_values(driver):
    first = 'printf abc > $VH_OUTPUTS_DIR/a.tar.gz; echo \'{"script": "cat $VH_INPUTS_DIR/data/*"}\''
    pipeline = run(
        driver,
        "pipelines",
        {
            "title": "two",
            "nodes": [node(driver, "load", first), node(driver, "train", "false")],
            "edges": [
                edge("load.output.a.tar.gz", "train.input.data"),
                edge("load.metadata.script", "train.parameter.script"),
            ],
        },
    )
    assert pipeline["status"] == "complete", pipeline["log"]
    assert pipeline["edges"][0]["source_node"] == nodes(pipeline)["load"]["id"]
    execution = nodes(pipeline)["train"]["execution"]
    assert driver.messages(execution, "stdout") == ["abc"]
    assert driver.read(execution)["pipeline_counter"] == pipeline["counter"]
    again = run(
        driver,
        "pipelines",
        {
            "nodes": [
                {"type": "mimic", "name": "load", "source": nodes(pipeline)["load"]["id"]},
                node(driver, "next", "cat $VH_INPUTS_DIR/data/*"),
            ],
            "edges": [edge("load.output.*.tar.gz", "next.input.data")],
        },
    )
    assert again["status"] == "complete", again["log"]


def test_parameters_reach_their_targets_dashed_keys_too(driver):
    sent = node(driver, "one", **{"on-error": "stop-next", "edge-merge-mode": "append"})
    sent["template"]["environment-variables"] = {"WORD": "blue", "NONE": None}
    sent["template"]["time-limit"] = 60
    config = {"name": "script", "default": "x", "targets": ["one.parameters.script"]}
    parameters = {"script": {"config": config, "expression": "echo $WORD"}}
    pipeline = run(driver, "pipelines", {"nodes": [sent], "edges": [], "parameters": parameters})
    assert driver.messages(nodes(pipeline)["one"]["execution"], "stdout") == ["blue"]


@pytest.mark.parametrize(
    ("on_error", "expected"),
    [
        ("stop-all", ("error", "error", "stopped", "stopped")),
        ("stop-next", ("error", "error", "stopped", "complete")),
        ("continue", ("complete", "error", "complete", "complete")),
        ("retry", ("error", "error", "stopped", "stopped")),
    ],
)
def test_a_node_that_fails(driver, on_error, expected):
    fails = node(driver, "fails", "exit 1", on_error=on_error)
    slow = node(driver, "slow", "sleep 1" if expected[3] == "complete" else "sleep 60")
    body = {"nodes": [fails, node(driver, "after"), slow], "edges": [edge("fails.output.*", "after.dependency.x")]}
    pipeline = run(driver, "pipelines", body)
    found = nodes(pipeline)
    statuses = (pipeline["status"], *(found[name]["status"] for name in ("fails", "after", "slow")))
    if on_error == "retry":
        assert sum("tried again" in entry["message"] for entry in found["fails"]["log"]) == 2
    assert statuses == expected


def test_stop_with_the_double_slash_of_vh(driver):
    body = {"nodes": [node(driver, "one", "sleep 30"), node(driver, "two")]}
    pipeline = run(driver, "pipelines", {**body, "edges": [edge("one.output.*", "two.input.data")]}, wait=False)
    path = f"/pipelines/{pipeline['id']}/"
    while nodes(driver.client.get(path).json())["one"]["status"] == "created":
        time.sleep(0.05)
    assert driver.client.post(f"{pipeline['url']}/stop/").status_code == 200
    while (pipeline := driver.client.get(path).json())["status"] not in FINAL:
        time.sleep(0.05)
    assert [pipeline["status"], *(one["status"] for one in pipeline["nodes"])] == ["stopped"] * 3


def test_null_inputs_are_refused(driver):
    sent = node(driver, "one")
    sent["template"]["inputs"]["data"] = None
    answer = driver.client.post("/pipelines/", json={"project": driver.server.project, "nodes": [sent], "edges": []})
    assert answer.status_code == 400


def test_a_grid_of_executions(driver):
    variants = {"style": "multiple", "rules": {"items": ["echo a", "echo b", "exit 1"]}}
    body = {"commit": driver.commit, "step": "Say", "type": "grid_search", "parameters": {"script": variants}}
    body |= {"inputs": {"data": []}, "configuration": {}, "maximum_queued_executions": 2}
    task = run(driver, "tasks", {**body, "on_child_error": "continue_and_error"})
    assert task["status"] == "error"
    assert (task["n_executions"], task["status_summary"]["complete_count"]) == (3, 2)
    ids = driver.client.get(f"/tasks/{task['id']}/execution_ids/").json()
    rows = driver.client.get("/executions/", params={"task": task["id"], "ordering": "counter"}).json()["results"]
    assert [row["id"] for row in rows] == ids
    assert [row["parameters"]["script"] for row in rows] == ["echo a", "echo b", "exit 1"]
    assert run(driver, "tasks", {**body, "on_child_error": "continue_and_complete"})["status"] == "complete"


def test_a_task_that_is_stopped(driver):
    variants = {"style": "multiple", "rules": {"items": ["sleep 30", "sleep 31"]}}
    body = {"commit": driver.commit, "step": "Say", "parameters": {"script": variants}}
    task = run(driver, "tasks", body, wait=False)
    assert driver.client.post(task["urls"]["stop"]).status_code == 200
    while (task := driver.client.get(f"/tasks/{task['id']}/").json())["status"] not in FINAL:
        time.sleep(0.05)
    assert task["status"] == "stopped"


def test_a_task_node_passes_all_outputs_on(driver):
    sweep = node(driver, "sweep", type="task")
    items = ["printf 1 > $VH_OUTPUTS_DIR/1", "printf 2 > $VH_OUTPUTS_DIR/2"]
    sweep["template"]["parameters"]["script"] = {"style": "multiple", "rules": {"items": items}}
    join = node(driver, "join", "cat $VH_INPUTS_DIR/data/*")
    body = {"nodes": [sweep, join], "edges": [edge("sweep.output.*", "join.input.data")]}
    pipeline = run(driver, "pipelines", body)
    assert driver.messages(nodes(pipeline)["join"]["execution"], "stdout") == ["12"]


@pytest.mark.parametrize(
    ("style", "rules", "expected"),
    [
        ("single", {"value": 1}, [1]),
        ("linear", {"start": 1, "end": 2, "step": 0.5}, [1, 1.5, 2]),
        ("logspace", {"start": -2, "end": 0, "count": 3, "base": 10}, [0.01, 0.1, 1]),
        ("multiple", {"items": ["1", "2"], "integerify": True}, [1, 2]),
    ],
)
def test_styles_of_variants(style, rules, expected):
    from tests.valohai_server.variants import expand

    values = expand("grid_search", {"x": {"style": style, "rules": rules}, "y": 7}, {})
    assert [one["x"] for one in values] == pytest.approx(expected)
    assert {one["y"] for one in values} == {7}
