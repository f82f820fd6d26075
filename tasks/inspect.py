"""Show what a data set holds before anything is trained on it: sizes, classes, oddities and a sheet of samples."""

import json
import sys
import tempfile
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from tasks.artifacts import publish_inspection
from tasks.runner import local

# Pairs of each split that are looked at: enough for shares of classes, a second of work.
_PAIRS = 200


@task(persist_result=False, task_run_name="inspect")
def inspect(dataset: str, source: Path) -> None:
    """Look at a part of a data set; it is for a person, so a failure is no more than a warning.

    Args:
        dataset: its registered name, or the path of its description.
        source: its archive on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="deeplab-inspect-") as folder:
        sheet = Path(folder) / "sheet.png"
        words = ["--json", f"--dataset={dataset}", f"--source={source}", f"--max_pairs={_PAIRS}", f"--sheet={sheet}"]
        found, last = _run([sys.executable, "-m", "deeplab", "inspect", *words])
        if found is None:
            get_run_logger().warning("the data set is not shown: %s", last)
            return
        publish_inspection(found, sheet)


def _run(command: list[str]) -> tuple[Mapping[str, Any] | None, str]:
    """What it printed as JSON, and the last line of its messages."""
    lines: dict[str, deque[str]] = {"stdout": deque(maxlen=1), "stderr": deque(maxlen=1)}
    status = local.run(command, lambda stream, line: lines[stream].append(line))
    said = "".join(lines["stderr"])
    return (json.loads("".join(lines["stdout"])), said) if status == 0 else (None, said)
