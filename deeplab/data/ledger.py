"""The ledger of a partial file: how much of each of its ranges has arrived, and what it is part of.

It is kept in ``FILE.json`` beside the partial file, always after the bytes it speaks of were written. A process that is
killed takes none of them along: the system has them. A machine that goes down loses what is not on its disk yet, so the
note also says what is, and tells one start of the system from another. Whatever ends a download, a later one counts on
nothing that is not in the file; and no download waits for the disk.
"""

import json
import os
import threading
from pathlib import Path

from deeplab.data.origin import Origin

# Bytes that arrive between two notes, and that may be here without being noted: they are lost if the process is killed.
_NOTE_EVERY, _UNNOTED = 16 << 20, 48 << 20
# Seconds between two moments at which all that has arrived is on the disk.
_SETTLE_EVERY = 10.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
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
        self._settled, self._boot = list(self._received), _boot()
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
        """Say that more bytes of a range are in the file; waits while too many are not noted yet."""
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

    def keep(self) -> None:
        """Note again and again what has arrived, until ``close``; for a thread of its own."""
        while not self._closed:
            with self._changed:
                self._changed.wait_for(lambda: self._unnoted >= _NOTE_EVERY or self._closed)
            self.write()

    def keep_settling(self, descriptor: int) -> None:
        """Bring what has arrived to the disk again and again, until ``close``; for a thread of its own."""
        while not self._closed:
            with self._changed:
                if self._changed.wait_for(lambda: self._closed, _SETTLE_EVERY):
                    return
            self.settle(descriptor)

    def settle(self, descriptor: int) -> None:
        """Bring what has arrived to the disk; the next note says so."""
        with self._changed:
            received = list(self._received)
        _sync(descriptor)
        with self._changed:
            self._settled = received

    def write(self) -> None:
        """Note what has arrived."""
        with self._changed:
            received, settled, count = list(self._received), list(self._settled), self._unnoted
        content = {
            "identity": self._identity,
            "length": self.length,
            "received": received,
            "settled": settled,
            "boot": self._boot,
        }
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


def _boot() -> str | None:
    """What tells one start of the system from another; None where it does not say."""
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip()
    except OSError:
        return None


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
        lasting = _boot() is None or note["boot"] != _boot()
        received = [int(count) for count in note["settled" if lasting else "received"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return received if origin.resumable and same and size == origin.size else None
