"""A flow started by a person at a terminal: quiet errors, Ctrl-C, and an exit status."""

import atexit
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

import httpx
from prefect.client.base import ServerType
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal

from deeplab.errors import ConfigError, DeepLabError


class ApiError(DeepLabError):
    """The Prefect API, where every run is recorded, cannot be used."""


_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def quiet_expected_errors() -> None:
    """Errors that explain themselves are logged without their traceback; defects keep theirs."""
    for name in _RUN_LOGGERS:
        logging.getLogger(name).addFilter(_drop_traceback)


def _drop_traceback(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if isinstance(error, DeepLabError):
        record.exc_info = record.exc_text = None
    return True


def run(body: Callable[[], None], *, hint: str = "the same command goes on from here") -> int:
    """Run the body of a command; every expected end is a line on stderr and an exit status.

    Args:
        body: what to do.
        hint: what a person is told who has stopped it.

    Returns:
        0 done, 1 failed, 2 a bad command line, 130 Ctrl-C, 143 told to stop.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        body()
    except DeepLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except (httpx.ConnectError, httpx.TimeoutException) as error:
        print(f"error: the Prefect API cannot be reached ({error or type(error).__name__})", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {hint}", file=sys.stderr)
        return 130
    except TerminationSignal:
        print(f"told to stop; {hint}", file=sys.stderr)
        return 143
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """After a flow run has recorded SIGTERM, Prefect sends it once more to the handler that was there before.

    The default one would end the process on the spot, and leave the embedded API behind for ever.
    """
    raise TerminationSignal(signal=number)


def start_api() -> None:
    """Reach the Prefect API, or start the embedded one where none is configured.

    The embedded API is a child in the terminal's process group: without this, Ctrl-C would end it before the run
    could record why it stopped. A process started while the signal is blocked never gets it.

    Raises:
        ApiError: if it does not answer.
    """
    try:
        with _blocked(signal.SIGINT), get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
            if client.server_type == ServerType.EPHEMERAL:
                _end_api_with_this_process()
    except RuntimeError as error:  # the embedded API's server ended or took too long
        raise ApiError(f"Prefect's embedded API did not start: {error}") from None
    if problem is not None:
        url = os.environ.get("PREFECT_API_URL", "of the active Prefect profile")
        raise ApiError(f"the Prefect API {url} does not answer ({problem}); start it, or unset PREFECT_API_URL")


def _end_api_with_this_process() -> None:
    """End the embedded API even if this process is killed: it would go on for ever, with a quarter of a gigabyte.

    A shell waits for the end of a pipe that only this process holds open.
    """
    from prefect.server.api.server import SubprocessASGIServer  # loads the whole server, needed only here

    server = SubprocessASGIServer()
    if server.server_process is None:
        return
    words = ["sh", "-c", f"read line; kill {server.server_process.pid}"]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    # Run before the server's own clean-up: that number may be another process's afterwards.
    atexit.register(_dismiss, guard)


def _dismiss(guard: subprocess.Popen[bytes]) -> None:
    guard.kill()
    guard.communicate()


@contextmanager
def _blocked(number: signal.Signals) -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {number})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
