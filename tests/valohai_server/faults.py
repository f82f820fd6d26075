"""Faults on demand: answers that fail, come late or never, as a test asks for them at /control/faults."""

import re
import threading
import time
from dataclasses import asdict, dataclass, field
from typing import Any

KINDS = ("cut", "lost-answer", "refuse", "slow", "slow-queue")


@dataclass
class Fault:
    """One fault.

    Attributes:
        kind: an HTTP status of 400 or more (answered instead of doing the work), ``refuse`` (hang up before the
            work), ``lost-answer`` (do the work, then hang up), ``cut`` (hang up in the middle of the answer's
            body), ``slow`` (wait ``seconds`` before the work), ``slow-queue`` (an execution created by the request
            stays queued for ``seconds``).
        match: regular expression searched in ``METHOD PATH?QUERY``.
        count: requests it hits; -1 = all.
        skip: matching requests that it lets pass first.
        after: share of the body, 0 to 1, that arrives before a ``cut``.
        retry_after: seconds of the Retry-After header.
        seconds: of ``slow`` and ``slow-queue``; of any other, how long the fault exists.
    """

    kind: str
    match: str = "."
    count: int = 1
    skip: int = 0
    after: float = 0.5
    retry_after: float | None = None
    seconds: float | None = None
    hits: int = 0
    born: float = field(default_factory=time.monotonic)

    def __post_init__(self) -> None:
        self.kind = str(self.kind)
        if self.kind not in KINDS and not re.fullmatch("[45][0-9][0-9]", self.kind):
            raise ValueError(f"kind {self.kind!r}: give a status from 400 to 599 or one of {', '.join(KINDS)}")
        re.compile(self.match)

    def applies(self, request: str) -> bool:
        if not re.search(self.match, request) or self.count == 0:
            return False
        if (
            not self.kind.startswith("slow")
            and self.seconds is not None
            and time.monotonic() > self.born + self.seconds
        ):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.count -= self.count > 0
        self.hits += 1
        return True


class Faults:
    """The faults in force."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fields: dict[str, Any]) -> None:
        with self._lock:
            self._faults.append(Fault(**fields))

    def clear(self) -> None:
        with self._lock:
            self._faults.clear()

    def listing(self) -> list[dict[str, Any]]:
        with self._lock:
            return [asdict(fault) for fault in self._faults]

    def take(self, request: str) -> Fault | None:
        """The first fault that hits this request."""
        with self._lock:
            return next((fault for fault in self._faults if fault.applies(request)), None)
