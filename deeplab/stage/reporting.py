"""What a running stage says: metric points on stdout, progress on stderr."""

import json
import math
import sys
import time
from contextlib import suppress
from typing import Any, TextIO

from tqdm import tqdm


def emit_metrics(**point: Any) -> None:
    """Print one metric point as a JSON line on stdout; numbers that JSON lacks become null."""
    clean = {name: _finite(value) for name, value in point.items()}
    _say(clean, sys.stdout)


def _say(line: dict[str, Any], stream: TextIO) -> None:
    """Print a JSON line; nobody listening any more is no reason to lose the work."""
    with suppress(BrokenPipeError):
        print(json.dumps(line), file=stream, flush=True)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Progress:
    """Counts what is done: a bar on a terminal, else a JSON line on stderr at most once a second.

    Args:
        total: how many units there are.
        unit: plural noun of what is counted, such as ``pairs`` or ``steps``.
        done: how many are done already.
    """

    def __init__(self, total: int, unit: str, done: int = 0) -> None:
        self._total, self._unit, self._done = total, unit, done
        self._last = 0.0
        self._bar = tqdm(total=total, initial=done, unit=f" {unit}") if sys.stderr.isatty() else None

    def advance(self, count: int = 1) -> None:
        """Count ``count`` more units as done."""
        self._done += count
        if self._bar is not None:
            self._bar.update(count)
        elif self._done >= self._total or time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            share = round(self._done / self._total, 4) if self._total else 1.0
            line = {"progress": share, "done": self._done, "total": self._total, "unit": self._unit}
            _say(line, sys.stderr)

    def close(self) -> None:
        """Leave the terminal's bar as it stands."""
        if self._bar is not None:
            self._bar.close()
