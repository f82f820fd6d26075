"""One execution for one key."""

import threading

import pytest

from tasks.valohai.client import Client
from tasks.valohai.errors import Refused, Throttled, Unreachable
from tasks.valohai.execution import key_tag, stop, submit_once
from tasks.valohai.step import ExecutionRequest

REQUEST = ExecutionRequest(commit="~1", step="Train", parameters={"steps": 2}, inputs={"data": ["datum://1"]})


def test_the_request(client, service, connection):
    made = submit_once(client, "K", REQUEST)
    assert not made.found
    payload = service.executions[0]["payload"]
    tags = payload.pop("tags")
    assert tags[0] == key_tag("K")
    assert payload == {
        "project": connection.project,
        "commit": "~1",
        "step": "Train",
        "inputs": {"data": ["datum://1"]},
        "parameters": {"steps": 2},
        "environment_variables": {},
        "runtime_config": {},
    }


@pytest.mark.parametrize("status", ["created", "queued", "started", "complete", "some new word"])
def test_what_keeps_another_one_from_being_made(client, service, status):
    service.add(status, [key_tag("K")])
    service.add("complete", [key_tag("other")])
    made = submit_once(client, "K", REQUEST)
    assert made.found and made.job.counter == 1
    assert not service.paths("POST")


@pytest.mark.parametrize("status", ["error", "crashed", "stopped", "stopping"])
def test_what_makes_room(client, service, status):
    service.add(status, [key_tag("K")])
    assert submit_once(client, "K", REQUEST).job.counter == 2


def test_an_execution_whose_outputs_are_gone_can_be_ignored(client, service):
    gone = service.add("complete", [key_tag("K")])
    assert submit_once(client, "K", REQUEST, ignore={gone["id"]}).job.counter == 2


@pytest.mark.parametrize("fault", ["lost", "garbage"])
def test_an_answer_lost_after_the_work_was_done(client, service, fault):
    service.faults = [("POST", "executions", fault)]
    made = submit_once(client, "K", REQUEST)
    assert not made.found
    assert [row["counter"] for row in service.executions] == [1] == [made.job.counter]


def test_an_answer_lost_of_an_execution_that_failed_at_once(client, service):
    """It is found by what is particular to this submission: by its key it would not count."""
    create = service.create

    def failing(payload):
        status, row = create(payload)
        row["status"] = "error"
        return status, row

    service.create = failing
    service.faults = [("POST", "executions", "lost")]
    assert submit_once(client, "K", REQUEST).job.status == "error"
    assert len(service.executions) == 1


def test_an_answer_lost_while_the_service_cannot_be_asked(client, service):
    service.faults = [("POST", "executions", "lost")] + [("GET", "executions", 503)] * 5
    submit_once(client, "K", REQUEST)
    assert len(service.executions) == 1


@pytest.mark.parametrize("fault", ["cut", 503, 502, 429, (429, {"Retry-After": "0"})])
def test_a_request_that_was_not_done_is_repeated(client, service, fault):
    service.faults = [("POST", "executions", fault)] * 2
    assert submit_once(client, "K", REQUEST).job.counter == 1
    assert len(service.executions) == 1 and len(service.paths("POST")) == 3


def test_a_request_done_too_late_leaves_one_execution(client, service):
    """The first POST is done only after the looks that followed it: the younger execution is stopped."""
    create, waiting = service.create, []

    def slow(payload):
        if not waiting:
            waiting.append(payload)
            return 503, {}
        create(waiting[0])
        return create(payload)

    service.create = slow
    assert submit_once(client, "K", REQUEST).job.counter == 1
    assert [row["status"] for row in service.executions] == ["created", "stopping"]


def test_what_the_service_refuses_is_not_repeated(client, service):
    service.faults = [("POST", "executions", 400)]
    with pytest.raises(Refused, match="by order of the test"):
        submit_once(client, "K", REQUEST)
    assert len(service.paths("POST")) == 1


def test_patience_ends(client, service):
    service.faults = [("POST", "executions", (429, {"Retry-After": "60"}))]
    with pytest.raises(Throttled):
        submit_once(client, "K", REQUEST, patience=1)
    service.faults = [("POST", "executions", "cut")] * 100
    with pytest.raises(Unreachable):
        submit_once(client, "K", REQUEST, patience=0.3)
    assert not service.executions


def test_at_the_same_time(service, connection):
    def submit():
        with Client(connection) as client:
            made.append(submit_once(client, "K", REQUEST).job.id)

    made: list[str] = []
    service.faults = [("POST", "executions", "lost")]
    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 4 and len(set(made)) == 1 == len(service.executions)


def test_stopping(client, service):
    service.add("started")
    assert stop(client, client.execution(service.executions[0]["id"])).status == "stopped"


@pytest.mark.parametrize("status", [400, 404])
def test_stopping_what_has_ended(client, service, status):
    service.add("complete")
    execution = client.execution(service.executions[0]["id"])
    service.faults = [("POST", "stop", status)]
    assert stop(client, execution).status == "complete"


def test_stopping_in_bad_weather(client, service):
    service.add("started")
    execution = client.execution(service.executions[0]["id"])
    service.faults = [("POST", "stop", 503), ("POST", "stop", "cut"), ("GET", "executions", 503)]
    assert stop(client, execution).status == "stopped"
