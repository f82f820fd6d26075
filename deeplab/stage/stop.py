"""How a stage is told to stop: SIGTERM, Ctrl-C, or the end of its standard input.

Most stages stop at once, by an exception that runs their clean-up. Training asks ``stop_requested`` between
steps instead, so that it can write a checkpoint first.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from deeplab.errors import Stopped

# Set by whoever starts a stage as a child: the stage stops when the parent, and with it this pipe, is gone.
STDIN_VARIABLE = "DEEPLAB_STOP_AT_END_OF_STDIN"
# Seconds a stage has between a stop request by a vanished parent and its forced end.
_GRACE = 60.0
# Seconds until a stop request that came at a bad moment is repeated.
_AGAIN = 0.05


class _State:
    requested: int | None = None
    polite = 0
    report = staticmethod(sys.__unraisablehook__)


_state = _State()


def install() -> None:
    """Route SIGTERM and SIGINT, and watch standard input where the parent asks for it."""
    _state.requested = None
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _on_signal)
    if sys.unraisablehook is not _on_unraisable:
        _state.report, sys.unraisablehook = sys.unraisablehook, _on_unraisable
    if os.environ.pop(STDIN_VARIABLE, ""):
        threading.Thread(target=_watch_stdin, name="parent-watch", daemon=True).start()


def stop_requested() -> int | None:
    """The signal number of a pending stop request, if any; only set inside ``polite_stop``."""
    return _state.requested


@contextmanager
def polite_stop() -> Iterator[None]:
    """Within this block a stop request only sets ``stop_requested``; at its end it is raised.

    Raises:
        Stopped: when the block ends and a stop was requested.
    """
    _state.polite += 1
    try:
        yield
    finally:
        _state.polite -= 1
    if _state.requested is not None and not _state.polite:
        raise Stopped(_state.requested)


def _on_signal(number: int, frame: FrameType | None) -> None:
    repeated = _state.requested is not None
    _state.requested = number
    if not _state.polite or (repeated and number == signal.SIGINT):
        raise Stopped(number)


def _on_unraisable(lost: "sys.UnraisableHookArgs") -> None:
    """Ask again if the request came where Python ignores every exception, as in a weak reference's callback."""
    if not isinstance(lost.exc_value, Stopped):
        _state.report(lost)
        return
    _state.requested = None
    threading.Timer(_AGAIN, os.kill, (os.getpid(), lost.exc_value.signal_number)).start()


def _watch_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(128 + signal.SIGTERM)
