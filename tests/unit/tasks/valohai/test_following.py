"""An execution followed to its end."""

import json

import pytest

from tasks.valohai.errors import ExecutionFailed, ExecutionLost, ExecutionStopped, LimitExceeded, Unauthorized
from tasks.valohai.events import Cursor, LogFile
from tasks.valohai.following import Receivers, follow
from tasks.valohai.polling import Limits, Pace


class Seen:
    def __init__(self):
        self.lines, self.points, self.statuses, self.notices, self.cursors = [], [], [], [], []
        self.receivers = Receivers(
            event=lambda event: self.lines.append(event.message),
            point=self.points.append,
            status=lambda execution: self.statuses.append(execution.status),
            saved=lambda cursor: self.cursors.append(json.dumps(cursor.to_json())),
            notice=self.notices.append,
        )


@pytest.fixture
def seen():
    return Seen()


def start(client, service, *script, status="created", **more):
    row = service.add(status, **more)
    execution = client.execution(row["id"])
    row["script"] = list(script)
    return execution, row


def printing(service, *lines, status="started", **how):
    """A step of a script: the execution prints, then shows a status."""

    def act(row):
        service.log(row, *lines, **how)
        row["status"] = status

    return act


def test_to_a_good_end(client, service, seen):
    execution, _ = start(
        client, service, "queued", printing(service, "a", '{"loss": 1.5}'), printing(service, "b"),
        "odd", printing(service, "last", status="complete"),
    )  # fmt: skip
    assert follow(client, execution, seen.receivers).status == "complete"
    assert seen.lines == ["a", '{"loss": 1.5}', "b", "last"]
    assert seen.points == [{"loss": 1.5}]
    assert seen.statuses == ["created", "queued", "started", "odd", "complete"]
    assert not seen.notices


def test_equal_lines_at_equal_times(client, service, seen):
    same = {"time": "2026-01-02T03:04:05.000000"}
    execution, _ = start(
        client, service, printing(service, "x", "x", **same), printing(service, "x", **same), "started",
        printing(service, "x", "y", status="complete", **same),
    )  # fmt: skip
    follow(client, execution, seen.receivers)
    assert seen.lines == ["x", "x", "x", "x", "y"]


def test_a_line_that_comes_late(client, service, seen):
    late = {"time": "2026-01-02T03:04:05.000000", "stream": "stderr"}
    execution, _ = start(
        client, service, printing(service, "new", time="2026-01-02T03:04:06.000000"), "started",
        lambda row: service.events[row["id"]].insert(0, {**late, "message": "old"}), "started", "complete",
    )  # fmt: skip
    follow(client, execution, seen.receivers)
    assert sorted(seen.lines) == ["new", "old"]


def test_a_clock_that_is_set_back(client, service, seen):
    execution, _ = start(
        client, service, printing(service, "a", "b", time="2026-01-02T03:04:06.000000"), "started",
        printing(service, "c", "d", time="2026-01-01T00:00:00.000000"), "started",
        printing(service, "c", time="2026-01-01T00:00:01.000000"), "complete",
    )  # fmt: skip
    follow(client, execution, seen.receivers)
    assert seen.lines == ["a", "b", "c", "d", "c"]


def test_late_lines_in_a_log_that_is_long(client, service, seen):
    lines = [f"line {number}" for number in range(1500)]
    late = [{"time": f"2026-01-02T03:24:5{number}.000000", "stream": "stderr", "message": "late"} for number in "123"]

    def come_late(row):
        service.events[row["id"]] = sorted(service.events[row["id"]] + late, key=lambda event: event["time"])

    execution, _ = start(client, service, printing(service, *lines), "started", come_late, "started", "complete")
    follow(client, execution, seen.receivers)
    assert seen.lines == [*lines, "late", "late", "late"]


def test_a_burst_larger_than_a_page(client, service, seen):
    burst = [f"line {number}" for number in range(7000)]
    execution, _ = start(client, service, printing(service, "first"), printing(service, *burst), "complete")
    follow(client, execution, seen.receivers)
    assert seen.lines == ["first", *burst]
    assert not seen.notices


def test_what_the_service_hides_while_it_runs_comes_at_the_end(client, service, seen):
    burst = [f"line {number}" for number in range(3000)]

    def end(row):
        service.shown_events = None
        row["status"] = "complete"

    service.shown_events = 2000
    execution, _ = start(client, service, printing(service, "first"), printing(service, *burst), "started", end)
    follow(client, execution, seen.receivers)
    assert seen.lines == ["first", *burst]
    assert len(seen.notices) == 1 and "when it has ended" in seen.notices[0]


def test_lines_that_the_service_has_lost(client, service, seen):
    service.shown_events = 10
    execution, _ = start(client, service, printing(service, *map(str, range(30))), "complete")
    follow(client, execution, seen.receivers)
    assert seen.lines == [str(number) for number in range(20, 30)]
    assert "lost lines" in seen.notices[-1]


def test_bad_weather(client, service, seen):
    execution, _ = start(client, service, printing(service, "a"), printing(service, "b"), "complete")
    service.faults = [("GET", "events", 503), ("GET", "events", "cut"), ("GET", "/executions/[^/]+/$", "cut")]
    service.faults += [("GET", "/executions/[^/]+/$", (429, {"Retry-After": "0"}))] * 5 + [("GET", "events", "garbage")]
    follow(client, execution, seen.receivers)
    assert seen.lines == ["a", "b"]


def test_a_log_that_cannot_be_read_fails_no_run(client, service, seen):
    execution, _ = start(client, service, printing(service, "a"), "complete")
    service.faults = [("GET", "events", 400)] * 10
    assert follow(client, execution, seen.receivers).status == "complete"
    assert len(seen.notices) == 1


def test_failure_brings_the_last_lines(client, service, seen):
    def fail(row):
        service.log(row, *map(str, range(30)))
        service.log(row, "it broke", stream="stderr")
        service.log(row, "Job ended", stream="status")
        row["status"] = "error"

    execution, _ = start(client, service, fail)
    with pytest.raises(
        ExecutionFailed, match="execution #1 of step 'Train' ended with status error: it broke;"
    ) as raised:
        follow(client, execution, seen.receivers)
    assert raised.value.lines[-2:] == ("29", "it broke") and len(raised.value.lines) == 10
    with pytest.raises(ExecutionFailed, match="it broke"):  # also when the lines were handed on before
        follow(client, execution, Receivers(), cursor=Cursor.from_json(json.loads(seen.cursors[-1])))


def test_a_failure_before_the_first_line_brings_the_platforms(client, service, seen):
    execution, _ = start(client, service, printing(service, "no such image", status="error", stream="status"))
    with pytest.raises(ExecutionFailed, match="status error; last lines:\n    no such image"):
        follow(client, execution, seen.receivers)


def test_stopped_by_us(client, service, seen):
    execution, _ = start(client, service, "started", "started")
    with pytest.raises(ExecutionStopped, match="on request"):
        follow(client, execution, seen.receivers, stop=lambda: "started" in seen.statuses)
    assert len(service.paths("POST", "stop")) == 1


def test_a_stop_that_is_not_taken_at_once(client, service, seen):
    execution, _ = start(client, service, "started", "started")
    service.faults = [("POST", "stop", "cut"), ("POST", "stop", 503)]
    with pytest.raises(ExecutionStopped):
        follow(client, execution, seen.receivers, stop=lambda: True)


def test_stopped_by_others(client, service, seen):
    execution, _ = start(client, service, "started", "stopping", "stopped")
    with pytest.raises(ExecutionStopped, match="somebody else"):
        follow(client, execution, seen.receivers)


def test_the_time_in_the_queue(client, service, seen):
    execution, _ = start(client, service, *["queued"] * 3)
    with pytest.raises(LimitExceeded, match="did not start within 60 s"):
        follow(client, execution, seen.receivers, limits=Limits(queue=60))  # it was created long ago


def test_the_time_of_the_run(client, service, seen):
    execution, _ = start(client, service, *["started"] * 50)
    with pytest.raises(LimitExceeded, match=r"did not end within 0\.05 s"):
        follow(client, execution, seen.receivers, limits=Limits(run=0.05))


def test_a_404_may_pass_but_not_often(client, service, seen):
    execution, _ = start(client, service, "started", "complete")
    service.faults = [("GET", "/executions/[^/]+/$", 404)] * 4
    assert follow(client, execution, seen.receivers).status == "complete"
    execution, _ = start(client, service)
    service.faults = [("GET", "/executions/[^/]+/$", 404)] * 5
    with pytest.raises(ExecutionLost):
        follow(client, execution, seen.receivers)


def test_a_token_that_expires_ends_it(client, service, seen):
    execution, _ = start(client, service)
    service.faults = [("GET", "/executions/[^/]+/$", 401)]
    with pytest.raises(Unauthorized, match="VALOHAI_TOKEN"):
        follow(client, execution, seen.receivers)


class Killed(BaseException):
    pass


@pytest.mark.parametrize("dies_at", range(1, 9))
@pytest.mark.parametrize("place", ["event", "saved"])
def test_a_log_file_has_each_line_once_whenever_its_writer_dies(client, service, tmp_path, dies_at, place):
    path = tmp_path / "K.log"
    path.write_text("of an earlier execution\n")
    same = {"time": "2026-01-02T03:04:05.000000"}
    execution, _ = start(
        client, service, printing(service, "a", "x", "x", **same), printing(service, "x", **same), "started",
        printing(service, "b", "c", time="2026-01-02T03:04:05.000001"), "started", printing(service, "d"), "complete",
    )  # fmt: skip
    calls = 0

    def attempt():
        log = LogFile(path, execution.id)

        def count(name):
            nonlocal calls
            calls += name == place
            if calls == dies_at:
                calls += 1
                log.file.flush()  # what was written reaches the disk, the cursor does not
                log.close()
                raise Killed

        def event(line):
            log.write(line.message)
            count("event")

        def saved(cursor):
            count("saved")
            log.save(cursor)

        with log:
            follow(client, execution, Receivers(event=event, saved=saved), cursor=log.cursor)

    try:
        attempt()
    except Killed:
        attempt()
    attempt()
    assert path.read_text().splitlines() == ["of an earlier execution", "a", "x", "x", "x", "b", "c", "d"]


def test_a_log_file_goes_on_with_another_execution(tmp_path):
    path = tmp_path / "K.log"
    with LogFile(path, "1") as log:
        log.write("first")
        log.save(Cursor(delivered=1))
    with LogFile(path, "2") as log:
        assert log.cursor.delivered == 0
        log.write("second")
        log.save(Cursor(delivered=1))
    (tmp_path / "K.log.cursor").write_text("{")
    with LogFile(path, "2"):
        pass
    assert path.read_text() == "first\nsecond\n"


def test_a_log_that_was_removed_is_written_anew(tmp_path):
    path = tmp_path / "K.log"
    with LogFile(path, "1") as log:
        log.write("first")
        log.save(Cursor(delivered=1))
    path.unlink()
    with LogFile(path, "1") as log:
        assert log.cursor.delivered == 0


def test_the_pace(monkeypatch):
    monkeypatch.undo()
    clock = 0.0
    monkeypatch.setattr("tasks.valohai.polling.time.monotonic", lambda: clock)
    for duration in (20, 60, 600, 7200):
        clock, pace, longest = 0.0, Pace(0.0, 0.0), 0.0
        while clock < duration:
            pause = pace.pause()
            longest, clock = max(longest, pause), clock + pause
            pace.requests += 1
            pace.requests += pace.allows_events()
        assert pace.requests / clock < 1
        assert longest <= 10


def test_a_line_that_is_no_utf8_is_in_the_log_all_the_same(client, service, tmp_path):
    execution, _ = start(client, service, printing(service, "half a sign: \ud83d", status="complete"))
    with LogFile(tmp_path / "log", execution.id) as log:
        receivers = Receivers(event=lambda event: log.write(event.message), saved=log.save)
        follow(client, execution, receivers, cursor=log.cursor)
    assert (tmp_path / "log").read_text() == "half a sign: \\ud83d\n"
