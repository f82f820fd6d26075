import json
from datetime import datetime

import httpx
import pytest


def test_every_type_of_parameter_reaches_the_command(driver):
    sent = {"text": "two words", "count": "7", "rate": 0.25, "logtostderr": True, "plain_flag": False, "note": None}
    execution = driver.submit(
        "Every type", parameters={**sent, "rates": [1, 2], "names": ["x", "y"], "choice": "b"}, tags=["key"], title="t"
    )
    assert execution["counter"] >= 1
    ended = driver.finish(execution)
    assert ended["status"] == "complete", driver.messages(execution)
    assert ended["cumulative_metadata"] == {
        "arguments": [
            "blue",
            "--text=two words",
            "--count=7",
            "--rate=0.25",
            "--logtostderr=True",
            "--rates=1",
            "--rates=2",
            "--names=x,y",
            "--choice=b",
        ],
        "colour": "green",
        "folder": "/valohai/repository",
    }
    assert ended["tags"] == ["key"]
    assert ended["duration"] > 0
    assert ended["outputs"][0]["name"] == "shown.txt"
    (point,) = driver.client.get(f"/executions/{execution['id']}/metadata/").json()
    assert "T" in point["_time"]
    assert "a plain line" in driver.messages(execution, "stdout")
    assert driver.messages(execution, "stderr") == ["to stderr"]


def test_defaults_hold_but_for_flags(driver):
    ended = driver.finish(driver.submit("Every type"))
    arguments = ended["cumulative_metadata"]["arguments"]
    assert arguments == ["blue", "--text=plain", "--count=3", "--rate=0.5", "--rates=6", "--rates=12", "--choice=a"]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"parameters": {"count": 0}}, "parameters"),
        ({"parameters": {"count": "many"}}, "parameters"),
        ({"parameters": {"choice": "c"}}, "parameters"),
        ({"parameters": {"nothing": 1}}, "parameters"),
        ({"inputs": {"nothing": []}}, "inputs"),
        ({"inputs": {"data": None}}, "inputs"),
        ({"inputs": {"data": ["datum://unknown"]}}, "inputs"),
        ({"environment": "moon"}, "environment"),
        ({"commit": "~0"}, "commit"),
        ({"step": "Nothing"}, "step"),
        ({"project": "0"}, "project"),
    ],
)
def test_what_does_not_fit_is_refused_by_its_field(driver, fields, field):
    body = {"project": driver.server.project, "commit": driver.commit, "step": "Every type", **fields}
    answer = driver.client.post("/executions/", json=body)
    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert answer.json()[field][0]["message"]


def test_exit_code_decides(driver):
    ended = driver.finish(driver.say("echo out; exit 3"))
    assert ended["status"] == "error"
    assert "Command exited with code 3" in driver.messages(ended)


def test_one_script_whose_last_command_counts(driver):
    assert driver.finish(driver.submit("First fails"))["status"] == "complete"


@pytest.mark.parametrize("own", [("--commands=stepwise",)], indirect=True)
def test_stepwise_stops_at_the_first_failure(own):
    ended = own.finish(own.submit("First fails"))
    assert ended["status"] == "error"
    assert "still here" not in own.messages(ended)


@pytest.mark.parametrize("own", [("--paths=rewrite",)], indirect=True)
def test_paths_can_be_rewritten(own):
    ended = own.finish(own.say("echo x > /valohai/outputs/file; pwd"))
    assert list(own.outputs(ended)) == ["file"]


def test_folders_and_variables(driver):
    script = "python -c 'import os, json; print(json.dumps({k: v for k, v in os.environ.items() if k[:3] == \"VH_\"}))'"
    ended = driver.finish(driver.say(f"{script}; cat /valohai/config/execution.json >&2; ls /valohai"))
    seen = ended["cumulative_metadata"]
    assert seen["VH_JOB_ID"] == f"exec-{ended['id']}"
    assert seen["VH_OUTPUTS_DIR"] == "/valohai/outputs"
    config = json.loads("".join(driver.messages(ended, "stderr")))
    assert config["valohai.execution-counter"] == ended["counter"]
    assert config["valohai.project-id"] == driver.server.project


def test_events_have_a_microsecond_each_and_a_limit(driver):
    ended = driver.finish(driver.say("for i in $(seq 300); do echo same; done"))
    whole = driver.events(ended, limit=0)
    times = [event["time"] for event in whole["events"]]
    assert times == sorted(set(times))
    for time in times:
        datetime.strptime(time, "%Y-%m-%dT%H:%M:%S.%f")
    assert driver.messages(ended, "stdout") == ["same"] * 300
    newest = driver.events(ended, limit=100)
    assert newest == {"total": whole["total"], "limit": 100, "truncated": True, "events": whole["events"][-100:]}
    assert whole["truncated"] is False


def test_stop_gives_time_to_finish(driver):
    script = (
        "trap 'echo told; echo half > $VH_OUTPUTS_DIR/part; exit 143' TERM; echo ready; while :; do sleep 0.1; done"
    )
    execution = driver.say(script)
    driver.until(execution, lambda _: "ready" in driver.messages(execution))
    answer = driver.client.post(driver.read(execution)["urls"]["stop"])
    assert answer.json() == {"message": "Stop requested."}
    ended = driver.finish(execution)
    assert ended["status"] == "stopped"
    assert "told" in driver.messages(execution)
    assert driver.content(driver.outputs(execution)["part"]) == b"half\n"
    assert driver.client.post(f"/executions/{execution['id']}/stop/").status_code == 400


def test_stop_kills_what_does_not_listen(driver):
    execution = driver.say("trap '' TERM; echo ready; while :; do sleep 0.2; done")
    driver.until(execution, lambda _: "ready" in driver.messages(execution))
    driver.client.post(f"/executions/{execution['id']}/stop/")
    assert driver.finish(execution)["status"] == "stopped"


@pytest.mark.parametrize("fields", [{}, {"step": "Say", "runtime_config": {"no_output_timeout": 1}}])
def test_limits_of_time(driver, fields):
    step = fields.pop("step", "Limited")
    parameters = {"script": "sleep 30"} if step == "Say" else {}
    ended = driver.finish(driver.submit(step, parameters=parameters, **fields))
    assert ended["status"] == "error"
    assert ended["duration"] < 15


@pytest.mark.parametrize("own", [("--workers=1",)], indirect=True)
def test_the_queue_has_as_many_places_as_workers(own):
    first, second = own.say("sleep 2"), own.say("true")
    third = own.say("true", priority=5)
    own.until(first, lambda current: current["status"] == "started")
    assert own.read(second)["status"] == "queued"
    assert own.client.post(f"/executions/{second['id']}/stop/").status_code == 200
    assert own.read(second)["status"] == "stopped"
    assert own.finish(third)["status"] == "complete"


def test_lookup_list_tags_and_delete(driver):
    first, second = driver.say("true"), driver.say("false")
    project = driver.server.project
    assert driver.client.get(f"/executions/{project}:{first['counter']}/").json()["id"] == first["id"]
    assert driver.client.get(f"/executions/{project}:latest/").json()["id"] == second["id"]
    driver.finish(first), driver.finish(second)
    query = {"project": project, "ordering": "-counter", "counter": [first["counter"], second["counter"]]}
    rows = driver.client.get("/executions/", params=query).json()
    assert [row["id"] for row in rows["results"]] == [second["id"], first["id"]]
    rows = driver.client.get("/executions/", params={**query, "status": "error"}).json()
    assert [row["id"] for row in rows["results"]] == [second["id"]]
    rows = driver.client.get("/executions/", params={**query, "limit": 1}).json()
    assert (rows["count"], len(rows["results"]), rows["previous"]) == (2, 1, None)
    assert httpx.get(rows["next"], headers=driver.client.headers).json()["results"][0]["id"] == first["id"]
    assert driver.client.post(f"/executions/{first['id']}/tags/", json={"tags": ["a"]}).json() == {"tags": ["a"]}
    trimmed = driver.client.get(f"/executions/{first['id']}/?exclude=metadata, events,outputs").json()
    assert not {"metadata", "events", "outputs"} & set(trimmed)
    assert driver.client.delete(f"/executions/{project}:{first['counter']}/").status_code == 204
    assert driver.client.get(f"/executions/{first['id']}/").status_code == 404


@pytest.mark.parametrize("own", [("--max-page=2",)], indirect=True)
def test_pages_may_be_shorter_than_asked(own):
    made = [own.say("true")["id"] for _ in range(5)]
    url, found = f"/executions/?project={own.server.project}&ordering=counter&limit=9000", []
    while url:
        page = own.client.get(url).json()
        assert len(page["results"]) <= 2
        found += [row["id"] for row in page["results"]]
        url = page["next"]
    assert found == made


@pytest.mark.parametrize("own", [("--running-log=5",)], indirect=True)
def test_a_running_log_may_show_its_newest_lines_only(own):
    execution = own.say("for i in $(seq 20); do echo $i; done; sleep 60")
    own.until(execution, lambda _: own.messages(execution)[-1] == "20")
    shown = own.events(execution, limit=0)
    assert [event["message"] for event in shown["events"]] == ["16", "17", "18", "19", "20"]
    assert shown["truncated"] is True
    own.client.post(f"/executions/{execution['id']}/stop/")
    own.finish(execution)
    assert own.messages(execution, "stdout") == [str(number) for number in range(1, 21)]
