import io
import json
import logging
from pathlib import Path

import pytest

from tasks.errors import StoreError
from tasks.stage_output import StageOutput, opened_log

FULL = Path("/dev/full")


class Recorder:
    def __init__(self):
        self.seen = []

    def progress(self, done, total, unit):
        self.seen.append((done, total, unit))

    def point(self, values):
        self.seen.append(dict(values))


@pytest.fixture
def recorder():
    return Recorder()


@pytest.fixture
def log():
    return io.StringIO()


@pytest.fixture
def output(log, recorder, caplog):
    caplog.set_level(logging.DEBUG)
    return StageOutput(log, logging.getLogger("run"), [recorder])


def test_log_holds_every_line_as_it_came(output, log):
    lines = [
        '{"progress": 0.5, "done": 1, "total": 2, "unit": "pairs"}',
        "text",
        "",
        '{"step": 1, "loss": 2.0}',
        "{bad",
    ]
    for line in lines:
        output.receive("stderr", line)
    assert log.getvalue().splitlines() == lines


def test_metric_points_come_from_stdout_only(output, recorder, caplog):
    output.receive("stdout", json.dumps({"step": 5, "loss": 1.234567}))
    output.receive("stderr", json.dumps({"step": 6, "loss": 1.0}))
    assert recorder.seen == [{"step": 5, "loss": 1.234567}]
    assert caplog.messages[0] == "step 5  loss 1.2346"


def test_progress_reaches_watchers_and_seldom_the_log(output, recorder, caplog):
    for done in range(1, 101):
        line = {"progress": done / 100, "done": done, "total": 100, "unit": "steps"}
        output.receive("stderr", json.dumps(line))
    assert len(recorder.seen) == 100
    assert caplog.messages == ["100 of 100 steps"]


@pytest.mark.parametrize("line", ['{"progress": 1}', '{"progress": 1, "done": null, "total": 2, "unit": "x"}'])
def test_odd_progress_is_ignored(output, recorder, line):
    output.receive("stderr", line)
    assert recorder.seen == []


def test_level_of_a_log_line_is_kept_and_its_time_dropped(output, caplog):
    output.receive("stderr", "2026-11-24 01:02:03,456 WARNING batch of 8 is small")
    assert caplog.record_tuples == [("run", logging.WARNING, "batch of 8 is small")]


def test_last_line_is_the_last_text_on_stderr(output):
    assert output.last_line == ""
    for line in ("deeplab train: no records", '{"progress": 1, "done": 1, "total": 1, "unit": "x"}', "  "):
        output.receive("stderr", line)
    output.receive("stdout", "on stdout")
    assert output.last_line == "deeplab train: no records"


def test_a_full_disk_names_the_log():
    with pytest.raises(StoreError, match="/dev/full: No space left on device; make room"), opened_log(FULL) as file:
        StageOutput(file, logging.getLogger("run")).receive("stdout", "a line")
