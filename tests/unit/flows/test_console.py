"""A run that nobody listens to any more."""

import os
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path

import httpx
import pytest

from deeplab.stage.stop import STDIN_VARIABLE
from flows import console

ROOT = Path(__file__).parents[3]
TALKS = """
import sys
import flows.train
from prefect.logging import get_logger
get_logger().warning("here")
sys.stdin.read()
get_logger().warning("unheard")
get_logger().warning("unheard")
open("went-on", "w").close()
"""


def test_a_run_goes_on_when_nobody_reads_what_it_prints(tmp_path):
    words = [sys.executable, "-c", TALKS]
    environment = {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path)}
    with subprocess.Popen(words, cwd=tmp_path, env=environment, stdin=-1, stdout=-1, stderr=-1, text=True) as process:
        assert "here" in process.stderr.readline()
        process.stdout.close()
        process.stderr.close()
        process.stdin.close()
    assert (tmp_path / "went-on").exists()


def test_what_the_system_refuses_is_one_line(capsys, tmp_path):
    assert console.run(lambda: (tmp_path / "none" / "x").write_text("")) == 1
    assert capsys.readouterr().err == f"error: {tmp_path}/none/x: No such file or directory\n"


INTERRUPTED = """
import os, signal
from flows import console
console.end_with_parent()
raise SystemExit(console.run(lambda: os.kill(os.getpid(), signal.SIGINT)))
"""


def test_a_trial_is_stopped_for_good_also_in_the_background_of_a_script(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path), STDIN_VARIABLE: "1"}
    ignoring = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED], env=environment, stdin=subprocess.PIPE, preexec_fn=ignoring
    ) as trial:
        assert trial.wait(60) == 130


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (401, "does not let this process in (GET http://api/x: 401): set PREFECT_API_AUTH_STRING"),
        (422, 'refuses GET http://api/x with 422: {"detail":"no such variable"}'),
    ],
)
def test_what_the_api_refuses_is_one_line(capsys, status, expected):
    def body():
        answer = httpx.Response(
            status, json={"detail": "no such variable"}, request=httpx.Request("GET", "http://api/x")
        )
        answer.raise_for_status()

    assert console.run(body) == 1
    assert expected in capsys.readouterr().err
