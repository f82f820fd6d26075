"""A real Prefect server on a free port, its database in a folder."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.azurite import free_port


@contextmanager
def running(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[dict[str, str]]:
    """A server until the end of the block.

    Args:
        home: becomes its PREFECT_HOME.
        settings: of the server alone, such as its database.

    Yields:
        The environment of processes that use it.
    """
    port = free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
        "PREFECT_HOME": str(home),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={port}"]
    with (home / "server.txt").open("wb") as output:
        server = subprocess.Popen(
            command, env={**environment, **(settings or {})}, stdout=output, stderr=output, start_new_session=True
        )
    try:
        _wait_for(f"{environment['PREFECT_API_URL']}/health", server, home / "server.txt")
        yield environment
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def _wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while True:
        try:
            if httpx.get(address, timeout=5).status_code == 200:
                return
        except httpx.HTTPError:
            pass
        if server.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the Prefect server did not start:\n{log.read_text()[-2000:]}")
        time.sleep(0.2)
