"""The log of an execution, each line exactly once, although the service can only be asked for the newest N lines.

A cursor remembers the lines of the last minute (as a multiset, since lines and their times may be equal) and how many
there were in all. What it has not seen in a page is new; whether the page reaches back far enough is checked too.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TextIO

from tasks.valohai.client import Client
from tasks.valohai.records import Event, EventPage

# Lines asked for: what comes in ten seconds at the service's limit of 50 a second; then more; then all.
_LIMITS = (500, 5000, 0)
# A line may arrive this much later than one with a newer time stamp.
_LATENESS = timedelta(seconds=60)
# Lines that are remembered however old they are.
_REMEMBERED = 500


@dataclass
class Cursor:
    """A position in the log of one execution.

    Attributes:
        delivered: how many lines were handed on.
        latest: time of the newest of them.
        seen: digest of a line -> its time and how often it was handed on; of the last minute or more.
        surplus: lines that the service counts but never shows.
    """

    delivered: int = 0
    latest: str = ""
    seen: dict[str, tuple[str, int]] = field(default_factory=dict)
    surplus: int = 0

    def unseen(self, page: EventPage) -> list[Event]:
        """The events of a page that were not handed on yet."""
        horizon, counts, new = self._horizon(), Counter[str](), []
        # Where lines are kept as they come, the last of them are new even if the machine's clock was set back.
        known = (
            len(page.events) if page.total is None else self.delivered + self.surplus - page.total + len(page.events)
        )
        for position, event in enumerate(page.events):
            if event.time < horizon and position < known:
                continue
            mark = _mark(event)
            counts[mark] += 1
            if counts[mark] > self.seen.get(mark, ("", 0))[1]:
                new.append(event)
        return new

    def reaches(self, page: EventPage, new: Sequence[Event], limit: int) -> bool:
        """Whether a page holds all that is new."""
        if page.total is not None and page.total == self.delivered + len(new) + self.surplus:
            return True
        if self._joins(page):
            # The service's count differs all the same: lines came late. Only the whole log can tell.
            return page.total is None or limit == 0
        if page.total is not None:
            return len(page.events) >= page.total
        return not page.truncated and (limit == 0 or len(page.events) < limit)

    def _joins(self, page: EventPage) -> bool:
        return bool(self.delivered and page.events) and page.events[0].time < self.latest

    def advance(self, new: Sequence[Event], total: int | None = None) -> None:
        """Count events as handed on.

        Args:
            new: as ``unseen`` gave them.
            total: how many lines the service counts, where the whole log was read.
        """
        self.delivered += len(new)
        if total is not None:
            self.surplus = total - self.delivered
        for event in new:
            mark = _mark(event)
            self.seen[mark] = event.time, self.seen.get(mark, ("", 0))[1] + 1
            self.latest = max(self.latest, event.time)
        if len(self.seen) > _REMEMBERED:
            horizon = min(self._horizon(), sorted(time for time, _ in self.seen.values())[-_REMEMBERED])
            self.seen = {mark: value for mark, value in self.seen.items() if value[0] >= horizon}

    def _horizon(self) -> str:
        """The time before which every line was handed on."""
        try:
            return (datetime.fromisoformat(self.latest) - _LATENESS).isoformat(timespec="microseconds")
        except (ValueError, OverflowError):
            return ""

    def to_json(self) -> dict[str, Any]:
        """The position as JSON types."""
        return {
            "delivered": self.delivered,
            "latest": self.latest,
            "seen": [[mark, *value] for mark, value in self.seen.items()],
            "surplus": self.surplus,
        }

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Cursor":
        """The position that ``to_json`` gave."""
        seen = {str(mark): (str(time), int(count)) for mark, time, count in content["seen"]}
        return cls(int(content["delivered"]), str(content["latest"]), seen, int(content["surplus"]))


def _mark(event: Event) -> str:
    text = "\0".join((event.time, event.stream, event.message))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:20]


@dataclass(frozen=True)
class Batch:
    """The result of one look at a log.

    Attributes:
        new: events that were not handed on, in order.
        page: the newest events, seen or not.
        whole: whether nothing is missing between the events handed on and the new ones.
        counted: how many lines the service counts, where it was asked for all.
    """

    new: tuple[Event, ...]
    page: tuple[Event, ...]
    whole: bool
    counted: int | None


def read_new(client: Client, execution_id: str, cursor: Cursor) -> Batch:
    """What a log holds beyond the cursor, asking for more lines while there is a gap.

    The cursor stays where it is: call ``advance`` when the events are handed on.
    """
    for limit in _LIMITS:
        page = client.events(execution_id, limit)
        new = cursor.unseen(page)
        if cursor.reaches(page, new, limit):
            return Batch(tuple(new), page.events, True, page.total if limit == 0 else None)
    return Batch(tuple(new), page.events, False, page.total)


class LogFile:
    """A log that holds each line once, however often its writer is killed.

    Beside ``PATH`` lies ``PATH.cursor``: the cursor, and how long the log was at that time. What was written after it
    was saved is cut off when the log is opened for the same execution again; those lines come once more.

    Args:
        path: the log; an earlier execution's lines in it stay.
        execution_id: whose log it is.
    """

    def __init__(self, path: Path, execution_id: str) -> None:
        self._state, self._execution_id = path.with_name(f"{path.name}.cursor"), execution_id
        self.cursor = Cursor()
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file: TextIO = path.open("a", encoding="utf-8", errors="backslashreplace", newline="\n")
        self._resume()

    def _resume(self) -> None:
        try:
            state = json.loads(self._state.read_text(encoding="utf-8"))
            same, size = state["execution"] == self._execution_id, int(state["size"])
            cursor = Cursor.from_json(state["cursor"]) if same else Cursor()
        except (OSError, ValueError, KeyError, TypeError):
            same = False
        if not same:
            # From here on: what is in the log was written for others.
            self.save(Cursor())
        elif size <= os.fstat(self.file.fileno()).st_size:
            self.file.truncate(size)
            self.cursor = cursor
        else:
            self.file.truncate(0)  # the log itself was cut or removed: it is written anew

    def write(self, line: str) -> None:
        """Add a line."""
        self.file.write(f"{line}\n")

    def save(self, cursor: Cursor) -> None:
        """Note that all lines up to the cursor are in the log."""
        self.file.flush()
        os.fsync(self.file.fileno())
        self.cursor = cursor
        state = {
            "execution": self._execution_id,
            "size": os.fstat(self.file.fileno()).st_size,
            "cursor": cursor.to_json(),
        }
        temporary = self._state.with_name(f".tmp-{self._state.name}")
        temporary.write_text(json.dumps(state), encoding="utf-8")
        temporary.replace(self._state)

    def close(self) -> None:
        """Close the log; lines after the last ``save`` will be cut off and come again."""
        self.file.close()

    def __enter__(self) -> "LogFile":
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()
