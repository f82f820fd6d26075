"""``metrics.jsonl``: one JSON object a logged step; a resumed run drops what lies beyond its checkpoint."""

import json
import math
from pathlib import Path
from typing import Any

from deeplab.stage import emit_metrics

FILE_NAME = "metrics.jsonl"


class MetricsLog:
    """Appends metric points to a file and prints them.

    Args:
        path: the file.
        step: completed steps; later points of an earlier attempt are removed.
    """

    def __init__(self, path: Path, step: int) -> None:
        kept = [line for line in _lines(path) if _step(line) <= step]
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
        temporary.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def write(self, **point: Any) -> None:
        """Append one point and print it on stdout."""
        emit_metrics(**point)
        self._file.write(json.dumps(point) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []


def _step(line: str) -> float:
    """The step of a line; a line cut short by a crash lies beyond every checkpoint."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.inf
