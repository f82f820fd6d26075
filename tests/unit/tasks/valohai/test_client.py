"""Requests, retries, pages and errors."""

import logging
import pickle
import time
import traceback

import httpx
import pytest

from tasks.valohai.client import Client
from tasks.valohai.connection import Connection
from tasks.valohai.errors import (
    NotConfigured,
    NotFound,
    Refused,
    ServerFailed,
    Throttled,
    Unauthorized,
    UnexpectedAnswer,
    Unreachable,
    ValohaiError,
    reason,
    refusal,
)
from tasks.valohai.records import Execution


def test_headers_and_tolerance(client, service):
    service.add("started", extra={"x": 1})
    execution = client.execution(service.executions[0]["id"])
    assert (execution.status, execution.label, execution.title, execution.page) == ("started", "execution #1", "", None)
    headers = service.requests[0][2]
    assert headers["User-Agent"].startswith("deeplab-prefect/")
    assert headers["Accept"] == "application/json"


@pytest.mark.parametrize("fault", [503, 502, 500, 429, "cut"])
def test_reads_are_tried_again(client, service, fault):
    service.add("started")
    service.faults = [("GET", "executions", fault)] * 3
    assert client.execution(service.executions[0]["id"]).status == "started"
    assert len(service.paths("GET")) == 4


def test_retry_after_is_honoured(client, service):
    service.add("started")
    service.faults = [("GET", "executions", (429, {"Retry-After": "1"}))]
    began = time.monotonic()
    client.execution(service.executions[0]["id"])
    assert time.monotonic() - began >= 1


def test_patience_ends(client, service):
    service.faults = [("GET", "executions", (503, {"Retry-After": "100"}))]
    with client.patient(0.2), pytest.raises(ServerFailed) as raised:
        client.execution("x")
    assert raised.value.retry_after == 100
    service.faults = [("GET", "executions", 503)] * 1000
    with client.patient(0.2), pytest.raises(ServerFailed):
        client.execution("x")


@pytest.mark.parametrize("fault", [503, 429, "cut"])
def test_writes_are_sent_once(client, service, fault):
    service.faults = [("POST", "executions", fault)]
    with pytest.raises(ValohaiError):
        client.create(Execution, {"step": "Train", "tags": []})
    assert len(service.paths("POST")) == 1


@pytest.mark.parametrize("links", [True, False])
def test_all_pages_are_read(client, service, links):
    service.links = links
    for _ in range(450):
        service.add("complete")
    assert [row.counter for row in client.executions()] == list(range(450, 0, -1))
    assert len(list(client.executions(limit=250))) == 250


def test_a_server_with_small_pages(client, service):
    service.page_limit = 7
    for _ in range(20):
        service.add("complete")
    assert len(list(client.executions())) == 20


def test_addresses_of_another_host_are_not_followed(client, service):
    service.add("started", urls={"stop": "http://evil.example/api/v0/executions/1/stop/"})
    with pytest.raises(UnexpectedAnswer, match=r"evil\.example.*VALOHAI_HOST"):
        client.stop(client.execution(service.executions[0]["id"]))


def test_the_stop_address_of_the_answer_is_used(client, service):
    row = service.add("started")
    row["urls"] = {"stop": f"{service.address}/api/v0/executions/{row['id']}/stop/"}
    client.stop(client.execution(row["id"]))
    assert row["status"] == "stopping"


def test_a_project_by_its_name(service, connection):
    service.projects += [{"id": "2", "name": "twice"}, {"id": "3", "name": "twice"}]
    for name, expected in (("deeplab", connection.project), ("twice", None), ("none", None)):
        with Client(Connection.resolve(host=service.address, token=connection.token, project=name)) as client:
            if expected:
                assert client.project.id == expected
            else:
                with pytest.raises(NotConfigured, match="give the project's id"):
                    _ = client.project


def test_nobody_at_home():
    with Client(Connection.resolve(host="http://127.0.0.1:9", token="t-o-k", project="p"), patience=0.1) as client:
        with pytest.raises(Unreachable, match="VALOHAI_HOST") as raised:
            client.execution("x")
    assert not raised.value.sent


def test_a_lost_answer_counts_as_sent(client, service):
    service.faults = [("POST", "executions", "lost")]
    with pytest.raises(Unreachable) as raised:
        client.create(Execution, {"step": "Train", "tags": []})
    assert raised.value.sent


def test_the_token_is_nowhere_to_be_seen(client, service, connection, caplog):
    token = connection.token.get_secret_value()
    caplog.set_level(logging.DEBUG)
    service.add("started")
    client.execution(service.executions[0]["id"])
    service.faults = [("GET", "executions", (400, {})), ("GET", "executions", 401)]
    for kind in (Refused, Unauthorized):
        with pytest.raises(kind) as raised:
            client.execution("x")
        assert token not in "".join(traceback.format_exception(raised.value))
        assert token not in repr(raised.value.__context__)
    assert token not in f"{client!r} {connection!r}"
    assert token not in caplog.text


def shown_with_names(error) -> str:
    """A traceback as tools print it that show the values of names, without the test's own frame."""
    found = traceback.TracebackException.from_exception(error, capture_locals=True)
    frames = [frame for frame in found.stack if "/tests/" not in frame.filename]
    assert frames and all(frame.locals for frame in frames)
    return repr([frame.locals for frame in frames])


def test_the_token_is_not_among_the_names_of_a_traceback(client, service, connection, monkeypatch):
    token = connection.token.get_secret_value()
    service.faults = [("GET", "executions", 401), ("GET", "executions", "cut")]
    with client.patient(0):
        for _ in range(2):
            with pytest.raises(ValohaiError) as raised:
                client.execution("x")
            assert token not in shown_with_names(raised.value)
    for given in (token, f"{token} {token}"):
        with pytest.raises(NotConfigured) as raised:
            Connection.resolve(token=given)
        assert token not in shown_with_names(raised.value)
        monkeypatch.setenv("VALOHAI_TOKEN", given)
        with pytest.raises(NotConfigured) as raised:
            Connection.resolve()
        assert token not in shown_with_names(raised.value)
        monkeypatch.delenv("VALOHAI_TOKEN")


def test_a_server_that_repeats_the_token(connection):
    token = connection.token.get_secret_value()
    transport = httpx.MockTransport(lambda request: httpx.Response(400, json={"detail": f"bad token {token}"}))
    with Client(connection, transport=transport) as client, pytest.raises(Refused) as raised:
        client.execution("x")
    assert token not in f"{raised.value} {raised.value!r}"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"detail": "Invalid token."}, "Invalid token."),
        ({"environment": [{"message": "No such.", "code": "does_not_exist"}]},
         "environment: No such. (code: does_not_exist)"),
        ({"non_field_errors": [{"message": "Cannot.", "code": "forbidden"}]}, "Cannot. (code: forbidden)"),
        ({"message": "Two-factor.", "code": "has_2fa"}, "Two-factor. (code: has_2fa)"),
        ({"step": ["A.", "B."], "commit": "C."}, "step: A.; B.; commit: C."),
        (["plain"], "plain"),
        ("<!DOCTYPE html><p>x", "internal error"),
        ("", "no reason given"),
        (None, "no reason given"),
    ],
)  # fmt: skip
def test_the_reason_of_an_error(body, text):
    assert reason(body) == text


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, Refused), (401, Unauthorized), (404, NotFound), (429, Throttled), (503, ServerFailed), (302, Refused)],
)
def test_the_kind_of_an_error(status, kind):
    error = refusal("GET /x at https://h", status, {"detail": "Why."})
    assert type(error) is kind
    assert str(error).startswith(f"GET /x at https://h: {status}, Why.; ")
    assert pickle.loads(pickle.dumps(error)).status == status


def test_an_answer_of_something_else(connection):
    for content in (b"<html>", b"[1]", b'{"name": "x"}'):
        transport = httpx.MockTransport(lambda request, content=content: httpx.Response(200, content=content))
        with Client(connection, transport=transport) as client, pytest.raises(UnexpectedAnswer, match="VALOHAI_HOST"):
            client.execution("x")
