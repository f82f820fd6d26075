import time

import httpx
import pytest


@pytest.fixture(params=["429", "503"])
def status(request):
    return request.param


def test_a_status_with_retry_after_so_many_times(driver, status):
    driver.server.fault(status, "GET .*/users/me/", count=2, retry_after=1.5)
    answers = [driver.client.get("/users/me/") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [int(status), int(status), 200]
    assert answers[0].headers["Retry-After"] == "1.5"


def test_refused_nothing_is_done(driver):
    before = driver.client.get("/executions/").json()["count"]
    driver.server.fault("refuse", "POST .*/executions/")
    with pytest.raises(httpx.RemoteProtocolError):
        driver.say("true")
    assert driver.client.get("/executions/").json()["count"] == before


def test_lost_answer_the_work_is_done(driver):
    before = driver.client.get("/executions/").json()["count"]
    driver.server.fault("lost-answer", "POST .*/executions/$")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        driver.say("true")
    assert driver.client.get("/executions/").json()["count"] == before + 1
    assert any(entry["fault"] == "lost-answer" for entry in driver.server.requests())


def test_a_download_that_breaks_off(driver):
    identity = driver.server.upload("big", b"x" * 1_000_000).removeprefix("datum://")
    url = driver.client.get(f"/data/{identity}/download/").json()["url"]
    driver.server.fault("cut", "GET /blobs/", after=0.3)
    received = bytearray()
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)), httpx.stream("GET", url) as answer:
        for chunk in answer.iter_raw():
            received += chunk
    assert 0 < len(received) <= 300_000
    assert len(httpx.get(url).content) == 1_000_000


def test_an_answer_that_breaks_off(driver):
    driver.server.fault("cut", "GET .*/projects/")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        driver.client.get("/projects/")


def test_a_slow_queue(driver):
    driver.server.fault("slow-queue", "POST .*/executions/", seconds=1.0)
    execution = driver.say("true")
    time.sleep(0.5)
    assert driver.read(execution)["status"] == "queued"
    assert driver.finish(execution)["status"] == "complete"


def test_a_slow_answer_and_a_time_without_network(driver):
    driver.server.fault("slow", "GET .*/users/me/", seconds=0.5)
    with pytest.raises(httpx.ReadTimeout):
        driver.client.get("/users/me/", timeout=0.2)
    driver.server.fault("refuse", count=-1, seconds=0.5)
    with pytest.raises(httpx.RemoteProtocolError):
        driver.client.get("/users/me/")
    time.sleep(0.6)
    assert driver.client.get("/users/me/").status_code == 200


def test_an_unknown_fault_is_refused(driver):
    answer = httpx.post(f"{driver.server.host}control/faults", json={"kind": "flood"})
    assert answer.status_code == 400


def test_requests_are_counted(driver):
    driver.client.get("/users/me/?once=1")
    found = [entry for entry in driver.server.requests() if "once=1" in entry["request"]]
    assert [(entry["request"], entry["status"]) for entry in found] == [("GET /api/v0/users/me/?once=1", 200)]
