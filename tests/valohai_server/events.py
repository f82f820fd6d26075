"""The log of an execution: a file that only grows, read from where the last reading ended."""

import json
import threading
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

_FORMAT = "%Y-%m-%dT%H:%M:%S.%f"
Event = dict[str, str]


def parse_time(text: str) -> datetime:
    return datetime.strptime(text.rstrip("Z"), _FORMAT)


class EventLog:
    """Events, metadata points and their last values.

    Each event has a microsecond of its own, for clients take equal lines of equal times for one. Times are moved
    as the file is read, always in the same way: the file only grows.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._last = datetime.min
        self._events: list[Event] = []
        self._metadata: list[dict[str, Any]] = []
        self._cumulative: dict[str, Any] = {}
        self._lock = threading.Lock()

    def append(self, message: str, stream: str = "status") -> None:
        """Add a line of the platform itself."""
        event = {"time": datetime.now(timezone.utc).strftime(_FORMAT), "stream": stream, "message": message}
        with self._lock, self.path.open("ab") as file:
            broken = file.tell() > 0 and not _ends_with_newline(self.path)
            file.write(b"\n" * broken + json.dumps(event).encode() + b"\n")

    def events(self) -> list[Event]:
        with self._lock:
            self._read()
            return list(self._events)

    def metadata(self) -> list[dict[str, Any]]:
        with self._lock:
            self._read()
            return list(self._metadata)

    def cumulative(self) -> dict[str, Any]:
        """The last value of each key."""
        with self._lock:
            self._read()
            return dict(self._cumulative)

    def _read(self) -> None:
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self._offset)
            whole, newline, _ = file.read().rpartition(b"\n")
        self._offset += len(whole) + len(newline)
        for line in whole.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue  # half a line of a supervisor that was killed
            moment = max(
                parse_time(event["time"]), self._last + timedelta(microseconds=1) if self._events else datetime.min
            )
            self._last = moment
            event["time"] = moment.strftime(_FORMAT)
            self._events.append(event)
            point = _point(event)
            if point is not None:
                self._cumulative.update(point)
                self._metadata.append({**point, "_time": event["time"]})


def _point(event: Event) -> dict[str, Any] | None:
    if event["stream"] != "stdout" or not event["message"].lstrip().startswith("{"):
        return None
    try:
        point = json.loads(event["message"])
    except ValueError:
        return None
    return point if isinstance(point, dict) else None


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, 2)
        return file.read() == b"\n"
