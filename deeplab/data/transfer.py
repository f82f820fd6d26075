"""Bring a file of known size here over several streams at a time, each range going on where its connection ended."""

import hashlib
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    stop_after_attempt,
    stop_before_delay,
    wait_random_exponential,
)

from deeplab.data.ledger import Ledger
from deeplab.data.origin import Busy, Interrupted, Origin, Reader
from deeplab.stage import Progress

BLOCK = 256 << 10
# Seconds over which a stream that gets nothing at all tries again: a server may be restarted meanwhile.
PATIENCE = 120.0
# Seconds that threads have to end: one may be connecting just now.
_LEAVE = 5.0
# Small enough that a processor's cache still holds what was read when it is digested.
_DIGEST_BLOCK = 256 << 10
_backoff = wait_random_exponential(multiplier=0.25, max=10)

_log = logging.getLogger(__name__)


def retrying(
    error: type[Interrupted], sleep: Callable[[float], Any] = time.sleep, attempts: float = math.inf
) -> Retrying:
    """Try again after an error: when the server asks for it, else after pauses that grow.

    Args:
        error: what may pass.
        sleep: waits so many seconds.
        attempts: how many tries at most, within ``PATIENCE``.
    """

    def pause(state: RetryCallState) -> float:
        failure = state.outcome.exception() if state.outcome else None
        asked = failure.pause if isinstance(failure, Busy) else None
        return _backoff(state) if asked is None else asked

    return Retrying(
        retry=retry_if_exception_type(error),
        wait=pause,
        stop=stop_before_delay(PATIENCE) | stop_after_attempt(attempts),  # type: ignore[arg-type]
        sleep=lambda seconds: sleep(seconds),
        before_sleep=lambda state: _log.info("%s; trying again", state.outcome and state.outcome.exception()),
        reraise=True,
    )


class Transfer:
    """The rest of a file on its way.

    Args:
        origin: where it comes from; its size is known.
        file: where it goes, of its full size already, open for reading and writing without a buffer.
        ledger: what has arrived.
    """

    def __init__(self, origin: Origin, file: BinaryIO, ledger: Ledger) -> None:
        self._origin, self._descriptor, self._ledger = origin, file.fileno(), ledger
        self._ranges: queue.SimpleQueue[int] = queue.SimpleQueue()
        for index in ledger.missing():
            self._ranges.put(index)
        self._readers: set[Reader] = set()
        self._stop = threading.Event()
        self._failures: queue.SimpleQueue[BaseException] = queue.SimpleQueue()
        self._hashes = [hashlib.sha256(), *([hashlib.md5(usedforsecurity=False)] if origin.md5 else [])]

    def run(self) -> list[str]:
        """Bring everything that is missing.

        Returns:
            The content's SHA-256, hexadecimal, and its MD5 where the origin tells one to compare.

        Raises:
            FetchError: if the source cannot be read, or changed; what has arrived is noted.
        """
        works = [self._digest, *[self._receive] * min(self._origin.streams, max(1, self._ranges.qsize()))]
        threads = [self._thread(work) for work in works]
        keeper = self._thread(self._ledger.keep)
        # Nobody waits for it: the disk takes its time.
        settler = self._thread(lambda: self._ledger.keep_settling(self._descriptor))
        try:
            for thread in (keeper, settler, *threads):
                thread.start()
            self._report(threads)
        finally:
            self._leave([*threads, keeper])
        if not self._failures.empty():
            raise self._failures.get()
        return [running.hexdigest() for running in self._hashes]

    def _thread(self, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._failures.put(error)
                self._stop.set()
                self._ledger.close()

        return threading.Thread(target=guarded, name="transfer", daemon=True)

    def _report(self, threads: list[threading.Thread]) -> None:
        """Tell the progress until the work is done or has failed."""
        done = self._ledger.received
        progress = Progress(self._ledger.size, "bytes", done)
        try:
            while any(thread.is_alive() for thread in threads) and not self._stop.is_set():
                for thread in threads:
                    thread.join(0.1)
                now = self._ledger.received
                if now > done:
                    progress.advance(now - done)
                    done = now
        finally:
            progress.close()

    def _leave(self, threads: list[threading.Thread]) -> None:
        self._stop.set()
        self._ledger.close()
        for reader in list(self._readers):
            reader.close()
        for thread in threads:
            thread.join(_LEAVE)

    def _receive(self) -> None:
        """A stream: take one range after the other."""
        while not self._stop.is_set():
            try:
                index = self._ranges.get_nowait()
            except queue.Empty:
                return
            while self._lacks(index) and not self._stop.is_set():
                before = self._ledger.received
                try:
                    retrying(Interrupted, self._stop.wait)(self._advance, index)
                except Interrupted:
                    # A server may serve fewer streams than there are: as long as others get on, this one waits.
                    if self._ledger.received == before:
                        raise

    def _lacks(self, index: int) -> bool:
        start, stop = self._ledger.span(index)
        return start < stop

    def _advance(self, index: int) -> None:
        """Go on with a range. A connection that ends after some bytes is no failure, and costs no pause."""
        start, stop = self._ledger.span(index)
        position = start
        if self._stop.is_set():
            return
        try:
            reader = self._origin.open(start, stop)
            self._readers.add(reader)
            try:
                while position < stop and not self._stop.is_set():
                    position += self._take(reader, index, position, stop)
            finally:
                self._readers.discard(reader)
                reader.close()
        except Interrupted:
            if position == start and not self._stop.is_set():
                raise

    def _take(self, reader: Reader, index: int, position: int, stop: int) -> int:
        block = reader.read(min(BLOCK, stop - position))
        if not block:
            raise Interrupted(f"{self._origin.shown}: ended at byte {position} of {self._origin.size}")
        if not self._stop.is_set():
            rest = memoryview(block)
            while rest:  # a disk that is nearly full takes a part
                written = os.pwrite(self._descriptor, rest, position)
                position, rest = position + written, rest[written:]
            self._ledger.add(index, len(block))
        return len(block)

    def _digest(self) -> None:
        """Digest the content while it arrives, as far as it is here without a gap."""
        position, buffer = 0, memoryview(bytearray(_DIGEST_BLOCK))
        while position < self._ledger.size and not self._stop.is_set():
            head = self._ledger.head(position, 0.5)
            while position < head and not self._stop.is_set():
                count = os.preadv(self._descriptor, [buffer[: head - position]], position)
                for running in self._hashes:
                    running.update(buffer[:count])
                position += count
