"""``python -m deployments.serve``: a Prefect server with its UI, everything registered, and a worker, until Ctrl-C.

The database (SQLite) and the logs are in ``./serve/prefect``; runs that were stopped go on when they are run again.
"""

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
from filelock import FileLock, Timeout

from deeplab.errors import ConfigError, DeepLabError
from deployments.processes import Child, Children, children_of, descendants, send, wait_for
from deployments.project_file import ROOT
from deployments.work_pool import NAME
from flows import console

_USUAL_PORT = 4200
# Seconds: the first start also makes the database and copies the UI.
_START_PATIENCE = 180.0
# Seconds that runs, the worker and the server have to end: a training writes a checkpoint in 12.
_RUNS_PATIENCE, _WORKER_PATIENCE, _SERVER_PATIENCE = 20.0, 15.0, 15.0


class ServeError(DeepLabError):
    """The server or the worker did not start, or ended by itself."""


@dataclass(frozen=True)
class Place:
    """Where the server is.

    Attributes:
        home: folder of its database and logs.
        host: address that it listens at.
        port: where; what the UI and the runs are told too.
    """

    home: Path
    host: str
    port: int

    @property
    def url(self) -> str:
        """Of the UI."""
        seen = "127.0.0.1" if self.host == "0.0.0.0" else self.host
        return f"http://{seen}:{self.port}"

    def environment(self) -> dict[str, str]:
        """Of every process: no setting of another Prefect, and the code that is here."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
        paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {
            **kept,
            "DEEPLAB_HOME": str(ROOT),
            "DO_NOT_TRACK": "1",
            "PREFECT_API_URL": f"{self.url}/api",
            "PREFECT_HOME": str(self.home),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_API_HOST": self.host,
            "PREFECT_SERVER_API_PORT": str(self.port),
            # So that the place of a run that died with the server is given back after a restart.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_UI_API_URL": f"{self.url}/api",
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PYTHONPATH": os.pathsep.join(paths),
            "PYTHONUNBUFFERED": "1",
        }


def serve(place: Place, file: Path | None = None) -> None:
    """Start everything and wait; whatever ends this ends everything.

    Args:
        place: where the server is to be.
        file: another ``prefect.yaml`` to deploy.

    Raises:
        ServeError: if something does not start or ends by itself.
        ConfigError: if the folder is in use, or a deployment could not run.
    """
    place.home.mkdir(parents=True, exist_ok=True)
    lock = FileLock(place.home / "serve.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"--home={place.home} is served already; stop that first, or give another folder") from None
    with lock:
        children = Children(place.environment(), place.home)
        try:
            server = children.start("server", ["prefect", "server", "start"])
            _wait_until_ready(server, place)
            _register(children.environment, file)
            words = ["prefect", "worker", "start", f"--pool={NAME}", "--type=process", f"--name={socket.gethostname()}"]
            children.start("worker", words)
            _tell(place)
            _watch(children.all)
        finally:
            _no_more_signals()
            _end(children)


def _wait_until_ready(server: Child, place: Place) -> None:
    print(f"starting the Prefect server (log: {server.log})", flush=True)
    deadline = time.monotonic() + _START_PATIENCE
    while server.running and time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            if httpx.get(f"{place.url}/api/health", timeout=5, trust_env=False).status_code == httpx.codes.OK:
                return
        time.sleep(0.2)
    reason = f"does not answer after {_START_PATIENCE:.0f} s" if server.running else "did not start"
    raise ServeError(f"the Prefect server {reason}; the end of {server.log}:\n{server.last_lines()}")


def _register(environment: Mapping[str, str], file: Path | None) -> None:
    words = [sys.executable, "-m", "deployments.register", *([f"--file={file}"] if file else [])]
    # In this terminal's process group: Ctrl-C ends it too.
    if subprocess.run(words, env=environment, check=False).returncode:
        raise ServeError("the deployments were not registered; the reason stands above")


def _tell(place: Place) -> None:
    print(f"\n{place.url}   deployments, runs, schedules; Ctrl-C ends everything", flush=True)
    print(f"export PREFECT_API_URL={place.url}/api   for prefect's own commands; logs: {place.home}/*.log", flush=True)


def _watch(children: Sequence[Child]) -> None:
    while all(child.running for child in children):
        time.sleep(0.5)
    ended = next(child for child in children if not child.running)
    status = ended.process.returncode
    raise ServeError(
        f"the Prefect {ended.name} has ended by itself (status {status}); the end of {ended.log}:\n{ended.last_lines()}"
    )


def _no_more_signals() -> None:
    """From here on a second Ctrl-C, or make's own signal after the terminal's, could only leave something behind."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _end(children: Children) -> None:
    """End the worker with its runs, and only then the server, which records how they ended."""
    for child in reversed(children.all):
        if child.name == "worker":
            _stop_runs(child)
            child.end(signal.SIGINT, _WORKER_PATIENCE)
        else:
            child.end(signal.SIGTERM, _SERVER_PATIENCE)
    children.ended()


def _stop_runs(worker: Child) -> None:
    """Tell a worker's runs to stop.

    The worker is held still meanwhile: it would begin the runs that wait, and end those that stop without their
    saying so.
    """
    runs = children_of(worker.process.pid) if worker.running else []
    if not runs:
        return
    with contextlib.suppress(OSError):  # the terminal may be gone
        print("stopping the runs; what is done is kept", flush=True)
    worker.process.send_signal(signal.SIGSTOP)
    everything = descendants(worker.process.pid)
    send(runs, signal.SIGTERM)
    wait_for(runs, _RUNS_PATIENCE)
    send(everything, signal.SIGKILL)
    worker.process.send_signal(signal.SIGCONT)


def _free_port(host: str, port: int | None) -> int:
    """The port that is asked for, else the usual one, else any that is free.

    Raises:
        ConfigError: if the one that is asked for is taken or none, or there is no such address.
    """
    if port is not None and not 0 <= port <= 65535:
        raise ConfigError(f"--port={port}: a port is a number from 0 to 65535")
    reason: str | None = None
    for wanted in (port if port is not None else _USUAL_PORT, 0):
        with socket.socket() as attempt:
            attempt.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                attempt.bind((host, wanted))
            except OSError as error:
                if port:
                    raise ConfigError(f"--port={port} of {host}: {error.strerror}; give another, or none") from None
                reason = error.strerror
                continue
            found: int = attempt.getsockname()[1]
            return found
    raise ConfigError(f"--host={host}: {reason}; give an address of this machine, or 0.0.0.0 for all of them")


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve from a command line; returns the exit status: 0 after Ctrl-C or SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m deployments.serve", description=__doc__)
    parser.add_argument("--home", type=Path, default=Path("serve/prefect"), help="folder of the database and the logs")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at; 0.0.0.0: every one of this machine")
    parser.add_argument("--port", type=int, help=f"default: {_USUAL_PORT}, or any free one; 0: any free one")
    parser.add_argument("--file", type=Path, help="another prefect.yaml to deploy")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        place = Place(given.home.resolve(), given.host, _free_port(given.host, given.port))
        serve(place, given.file.resolve() if given.file else None)

    status = console.run(body, hint="everything has ended")
    return 0 if status in (130, 143) else status


if __name__ == "__main__":
    raise SystemExit(main())
