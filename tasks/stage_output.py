"""What a running stage prints, and where each line goes: its log in the store, the run's log, progress and metrics."""

import errno
import json
import logging
import re
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TextIO, TypeAlias

from tasks.errors import StoreError
from tasks.result import shown
from tasks.runner.local import Stream

# The level and the message of a stage's log line; its time is dropped, as the run's log has its own.
_LEVELS = {name: getattr(logging, name) for name in ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")}
_LOG_LINE = re.compile(rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ ({'|'.join(_LEVELS)}) (.*)")
# Seconds between two progress lines in the run's log; the store's log has them all.
_PROGRESS_INTERVAL = 10.0
_KEPT_LINES = 20

# A text, since Python 3.10 cannot evaluate it.
Logger: TypeAlias = "logging.Logger | logging.LoggerAdapter[Any]"


class Watcher(Protocol):
    """Someone who wants to see what a stage reports while it runs."""

    def progress(self, done: int, total: int, unit: str) -> None:
        """So much is done."""

    def point(self, values: Mapping[str, Any]) -> None:
        """A metric point, such as ``{"step": 100, "loss": 1.93}``."""


@contextmanager
def opened_log(path: Path) -> Iterator[TextIO]:
    """A stage's log, to be written on.

    Raises:
        StoreError: where the disk is full; what the system raises then does not name the file.
    """
    try:
        with path.open("a", encoding="utf-8") as file:
            yield file
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StoreError(f"{shown(path)}: {error.strerror}; make room, and run the same command again") from None


class StageOutput:
    """Receives the lines of a stage.

    Args:
        log: the stage's log in the store; gets every line first, and at once.
        logger: the run's logger.
        watchers: receivers of progress and metric points.
    """

    def __init__(self, log: TextIO, logger: Logger, watchers: Sequence[Watcher] = ()) -> None:
        self._log, self._logger, self._watchers = log, logger, watchers
        self._last_progress = time.monotonic()
        self._last_lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def receive(self, stream: Stream, line: str) -> None:
        """Take one line of the stage's stdout or stderr."""
        self._log.write(f"{line}\n")
        self._log.flush()
        values = _json_object(line)
        if values is not None and stream == "stdout":
            self._point(values)
        elif values is not None and "progress" in values:
            self._progress(values)
        elif line.strip():
            self._text(stream, line)

    @property
    def last_line(self) -> str:
        """The last line of text on stderr: a failed stage's reason."""
        return self._last_lines[-1] if self._last_lines else ""

    def _point(self, values: Mapping[str, Any]) -> None:
        self._logger.info("%s", "  ".join(f"{name} {_short(value)}" for name, value in values.items()))
        for watcher in self._watchers:
            watcher.point(values)

    def _progress(self, values: Mapping[str, Any]) -> None:
        try:
            done, total, unit = int(values["done"]), int(values["total"]), str(values["unit"])
        except (KeyError, TypeError, ValueError):
            return  # not a progress line of ours; the store's log has it
        now = time.monotonic()
        if done >= total or now - self._last_progress >= _PROGRESS_INTERVAL:
            self._last_progress = now
            self._logger.info("%s", amount(done, total, unit))
        for watcher in self._watchers:
            watcher.progress(done, total, unit)

    def _text(self, stream: Stream, line: str) -> None:
        if stream == "stderr":
            self._last_lines.append(line.strip())
        found = _LOG_LINE.match(line)
        if found:
            self._logger.log(_LEVELS[found[1]], "%s", found[2])
        else:
            self._logger.info("%s", line)


def amount(done: int, total: int, unit: str) -> str:
    """So much of so much; bytes as megabytes."""
    return f"{done / 1e6:.1f} of {total / 1e6:.1f} MB" if unit == "bytes" else f"{done} of {total} {unit}"


def _json_object(line: str) -> dict[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        values = json.loads(line)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def _short(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(value)
