"""A flow started by a person at a terminal: quiet errors, Ctrl-C, and an exit status."""

import atexit
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import NoReturn

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.logging.handlers import PrefectConsoleHandler
from prefect.settings import PREFECT_API_URL

from deeplab.errors import ConfigError, DeepLabError, system_reason
from deeplab.stage.stop import STDIN_VARIABLE
from flows.cancelling import confirm_cancel


class ApiError(DeepLabError):
    """The Prefect API, where every run is recorded, cannot be used."""


# Seconds that a run has to end in after its parent: its stage stops first, and the API may be gone too.
_GRACE = 20.0
_RUN_LOGGERS = ("prefect.flow_runs", "prefect.task_runs")


def set_up_logging() -> None:
    """Keep the log short, and a run alive whoever reads it.

    Errors that explain themselves come without their traceback; defects keep theirs. When nobody reads any more what is
    printed, as when the worker that started the run was killed, Rich would end the process, and with it a training: it
    is silent from then on instead. The store's logs and Prefect's API get every line as before.
    """
    for name in _RUN_LOGGERS:
        logging.getLogger(name).addFilter(_drop_traceback)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, PrefectConsoleHandler):
            terminal = handler.console
            terminal.on_broken_pipe = partial(setattr, terminal, "quiet", True)  # type: ignore[method-assign]


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
        0 done, 1 failed, 2 a bad command line, 130 Ctrl-C, 143 told to stop or cancelled.
    """
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        body()
    except DeepLabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except OSError as error:
        if not error.strerror or not error.filename:
            raise
        print(f"error: {system_reason(error)}", file=sys.stderr)
        return 1
    except (httpx.ConnectError, httpx.TimeoutException) as error:
        print(f"error: the Prefect API cannot be reached ({error or type(error).__name__})", file=sys.stderr)
        return 1
    except httpx.HTTPStatusError as error:
        print(f"error: {_refusal(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; {hint}", file=sys.stderr)
        return 130
    except TerminationSignal:
        print(f"{'cancelled' if confirm_cancel() else 'told to stop'}; {hint}", file=sys.stderr)
        return 143
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _refusal(error: httpx.HTTPStatusError) -> str:
    """What the Prefect API says no to, and why, for a person."""
    asked, answer = f"{error.request.method} {error.request.url}", error.response
    if answer.status_code in (401, 403):
        return (
            f"the Prefect API does not let this process in ({asked}: {answer.status_code}): set "
            "PREFECT_API_AUTH_STRING, or PREFECT_API_KEY, as its server asks for"
        )
    return f"the Prefect API refuses {asked} with {answer.status_code}: {' '.join(answer.text.split())[:500]}"


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """After a flow run has recorded SIGTERM, Prefect sends it once more to the handler that was there before.

    The default one would end the process on the spot, and leave the embedded API behind for ever.
    """
    raise TerminationSignal(signal=number)


def end_with_parent() -> None:
    """Be told to stop when the process that started this one, and asked for it, is gone.

    That process stops this one for good by SIGINT, which a script's background job would hand down as ignored.
    """
    if os.environ.pop(STDIN_VARIABLE, ""):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        threading.Thread(target=_watch_stdin, name="parent-watch", daemon=True).start()


def _watch_stdin() -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_GRACE)
    os._exit(128 + signal.SIGTERM)


def start_api() -> None:
    """Reach the Prefect API, or start the embedded one where none is configured.

    The embedded API is a child in the terminal's process group: without this, Ctrl-C would end it before the run
    could record why it stopped. A process started while the signal is blocked never gets it.

    Raises:
        ApiError: if it does not answer.
    """
    try:
        with _blocked(signal.SIGINT), _guarded(), get_client(sync_client=True) as client:
            problem = client.api_healthcheck()
    except RuntimeError as error:  # the embedded API's server ended or took too long
        raise ApiError(f"Prefect's embedded API did not start: {error}") from None
    if problem is not None:
        url = os.environ.get("PREFECT_API_URL", "of the active Prefect profile")
        raise ApiError(f"the Prefect API {url} does not answer ({problem}); start it, or unset PREFECT_API_URL")


def require_server(why: str) -> str:
    """The API of a server that is there before and after this process; the embedded API is none.

    Args:
        why: what needs one.

    Raises:
        ConfigError: if none is configured.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise ConfigError(
            f"{why}, and no server is configured: start one (make serve, or prefect server start), and set "
            "PREFECT_API_URL"
        )
    return str(url)


@contextmanager
def _guarded() -> Iterator[None]:
    """End an embedded API that is started within this block when this process ends, even if it is killed.

    The API would go on for ever, with a quarter of a gigabyte. It takes seconds to start, so a thread watches for its
    first moment.
    """
    started = threading.Event()

    def watch() -> None:
        while not _end_api_with_this_process() and not started.wait(0.05):
            pass

    watcher = threading.Thread(target=watch, name="api-guard", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        started.set()
        watcher.join()


def _end_api_with_this_process() -> bool:
    """Whether there is an embedded API; a shell then waits for the end of a pipe that only this process holds open."""
    # Where an API is configured, the module, and with it the whole server, is not loaded.
    module = sys.modules.get("prefect.server.api.server")
    server = module.SubprocessASGIServer() if module and hasattr(module, "SubprocessASGIServer") else None
    if server is None or server.server_process is None:
        return False
    words = ["sh", "-c", f"read line; kill {server.server_process.pid}"]
    guard = subprocess.Popen(words, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True)
    # Run before the server's own clean-up: that number may be another process's afterwards.
    atexit.register(_dismiss, guard)
    return True


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
