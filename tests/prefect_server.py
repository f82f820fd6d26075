"""A real Prefect server on a free port, its database in a folder."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.azurite import free_port


class PrefectServer:
    """A server that can be killed, and started again at the same port with the same database.

    Args:
        home: becomes its PREFECT_HOME.
        settings: of the server alone, such as its database.

    Attributes:
        environment: of processes that use it.
    """

    def __init__(self, home: Path, settings: Mapping[str, str] | None = None) -> None:
        self._log, self._port = home / "server.txt", free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._settings = dict(settings or {})
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": str(home),
            "PREFECT_API_URL": f"http://127.0.0.1:{self._port}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "DO_NOT_TRACK": "1",
        }
        home.mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = [sys.executable, "-m", "prefect", "server", "start", "--host=127.0.0.1", f"--port={self._port}"]
        with self._log.open("ab") as output:
            environment = {**self.environment, **self._settings}
            self._process = subprocess.Popen(
                command, env=environment, stdout=output, stderr=output, start_new_session=True
            )
        deadline = time.monotonic() + 120
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the Prefect server did not start:\n{self._log.read_text()[-2000:]}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.environment['PREFECT_API_URL']}/health", timeout=5).status_code == 200
        except httpx.HTTPError:
            return False

    def kill(self) -> None:
        """End it without notice."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, politely first."""
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def running(home: Path, settings: Mapping[str, str] | None = None) -> Iterator[PrefectServer]:
    """A server until the end of the block."""
    server = PrefectServer(home, settings)
    try:
        server.start()
        yield server
    finally:
        server.stop()
