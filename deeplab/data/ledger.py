"""The ledger of a partial file: how much of each of its ranges has arrived, and what it is part of.

It is kept in ``FILE.json`` beside the partial file, always after the bytes it speaks of are on the disk. So whatever
ends a download, a later one finds nothing there that is not in the file.
"""

import json
import os
import threading
from pathlib import Path

from deeplab.data.origin import Origin

# Bytes that arrive between two notes, and that may be here without being noted: they are lost if the process is killed.
_NOTE_EVERY, _UNNOTED = 16 << 20, 48 << 20
_sync = getattr(os, "fdatasync", os.fsync)


class Ledger:
    """What has arrived of a file of known size.

    Args:
        origin: what the file is part of.
        partial: the file.
        length: bytes a range.
    """

    def __init__(self, origin: Origin, partial: Path, length: int) -> None:
        assert origin.size is not None
        self._note, self._identity = note_of(partial), dict(origin.identity)
        self.size, self.length = origin.size, length
        self._received = _noted(origin, partial, length) or [0] * -(-origin.size // length)
        self._changed = threading.Condition()
        self._unnoted, self._first, self._closed = 0, 0, False

    @property
    def received(self) -> int:
        """Bytes that are here."""
        with self._changed:
            return sum(self._received)

    def span(self, index: int) -> tuple[int, int]:
        """The first byte that a range still lacks, and the byte behind its end."""
        start = index * self.length
        return start + self._received[index], min(start + self.length, self.size)

    def missing(self) -> list[int]:
        """The ranges that are not whole, in order."""
        spans = ((index, *self.span(index)) for index in range(len(self._received)))
        return [index for index, start, stop in spans if start < stop]

    def add(self, index: int, count: int) -> None:
        """Say that more bytes of a range are in the file; waits while too many are not on the disk yet."""
        with self._changed:
            self._received[index] += count
            self._unnoted += count
            start, stop = self.span(index)
            if start == stop or self._unnoted >= _NOTE_EVERY:  # waking others at every block costs a third of the time
                self._changed.notify_all()
            while self._unnoted > _UNNOTED and not self._closed:
                self._changed.wait()

    def head(self, beyond: int, patience: float) -> int:
        """Bytes from the beginning without a gap, once they are more than ``beyond`` or after so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._head() > beyond or self._closed, patience)
            return self._head()

    def _head(self) -> int:
        while self._first < len(self._received):
            start, stop = self.span(self._first)
            if start < stop:
                return start
            self._first += 1
        return self.size

    def keep(self, descriptor: int) -> None:
        """Note again and again what has arrived, until ``close``; for a thread of its own."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._unnoted >= _NOTE_EVERY or self._closed)
            self.write(descriptor)

    def write(self, descriptor: int) -> None:
        """Bring what has arrived to the disk, and note it then."""
        with self._changed:
            received, count = list(self._received), self._unnoted
        _sync(descriptor)
        content = {"identity": self._identity, "length": self.length, "received": received}
        temporary = self._note.with_name(f".tmp-{self._note.name.lstrip('.')}")
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        temporary.replace(self._note)
        with self._changed:
            self._unnoted -= count
            self._changed.notify_all()

    def close(self) -> None:
        """Let nobody wait any longer."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


def note_of(partial: Path) -> Path:
    """Where the ledger of a partial file lies."""
    return partial.with_name(f"{partial.name}.json")


def kept(origin: Origin, partial: Path) -> int:
    """Bytes of this very content that an earlier download left."""
    return sum(_noted(origin, partial) or [])


def _noted(origin: Origin, partial: Path, length: int | None = None) -> list[int] | None:
    """What the note says has arrived of each range, if it speaks of this content, this file and such ranges."""
    try:
        note = json.loads(note_of(partial).read_text(encoding="utf-8"))
        size = partial.stat().st_size
        same = (note["identity"], note["length"]) == (dict(origin.identity), length or note["length"])
        received = [int(count) for count in note["received"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return received if origin.resumable and same and size == origin.size else None
