import json

import pytest

from deeplab.stage import Progress, emit_metrics


def test_metrics_are_json_lines_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    emit_metrics(step=3, loss=float("nan"))
    assert json.loads(capsys.readouterr().out) == {"step": 3, "loss": None}


def test_progress_is_json_on_stderr_at_most_once_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(100, "pairs")
    for _ in range(100):
        progress.advance()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[-1] == {"progress": 1.0, "done": 100, "total": 100, "unit": "pairs"}
    assert len(lines) <= 3
