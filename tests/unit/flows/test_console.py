"""A run that nobody listens to any more."""

import subprocess
import sys
from pathlib import Path

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
