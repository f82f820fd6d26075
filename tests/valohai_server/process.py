"""The server as a process of its own, for tests."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.valohai_server.runner import kill_all

ROOT = Path(__file__).resolve().parents[2]


class ServerProcess:
    """Start, kill and restart a server on one data folder; its port and token stay.

    Attributes:
        host, token, project: what a client needs.
        variables: the same as environment variables.
    """

    def __init__(self, data: Path, *options: str) -> None:
        self.data, self.options = data, options
        self.port = 0
        self._process: subprocess.Popen[str] | None = None
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "tests.valohai_server", f"--port={self.port}", f"--data={self.data}"]
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VALOHAI_")}
        with (self.data.parent / f"{self.data.name}.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *self.options], cwd=ROOT, env=kept, stdout=subprocess.PIPE, stderr=log, text=True
            )
        assert self._process.stdout
        lines = [self._process.stdout.readline().strip() for _ in range(3)]
        if not lines[2]:
            raise RuntimeError(f"the server did not start: see {self.data}.log")
        self.variables = dict(line.split("=", 1) for line in lines)
        self.host, self.token = self.variables["VALOHAI_HOST"], self.variables["VALOHAI_TOKEN"]
        self.project = self.variables["VALOHAI_PROJECT"]
        self.port = int(self.host.rstrip("/").rpartition(":")[2])

    def kill(self, number: int = signal.SIGKILL) -> None:
        """End the server; what it runs goes on."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(20)
            if self._process.stdout:
                self._process.stdout.close()
            self._process = None

    def restart(self) -> None:
        self.kill()
        self.start()

    def close(self) -> None:
        """End the server and all that it runs."""
        self.kill(signal.SIGTERM)
        kill_all(self.data)

    def client(self) -> httpx.Client:
        """Talks to the API; paths without /api/v0."""
        headers = {"Authorization": f"Token {self.token}"}
        return httpx.Client(base_url=f"{self.host}api/v0", headers=headers, timeout=30)

    def fault(self, kind: str, match: str = ".", **more: Any) -> None:
        """Ask for a fault, see :class:`tests.valohai_server.faults.Fault`."""
        httpx.post(f"{self.host}control/faults", json={"kind": kind, "match": match, **more}).raise_for_status()

    def clear_faults(self) -> None:
        httpx.delete(f"{self.host}control/faults").raise_for_status()

    def requests(self) -> list[dict[str, Any]]:
        """Every request since the server's start: ``request``, ``status``, ``fault``, ``time``."""
        return httpx.get(f"{self.host}control/requests").raise_for_status().json()

    def upload(self, name: str, content: bytes) -> str:
        """Store a datum; its ``datum://`` URL."""
        answer = httpx.post(f"{self.host}control/data", params={"name": name}, content=content)
        return answer.raise_for_status().json()["url"]

    def lose(self, execution: str) -> None:
        """Let the machine of a running execution vanish."""
        httpx.post(f"{self.host}control/executions/{execution}/lose").raise_for_status()


@contextlib.contextmanager
def running(data: Path, *options: str) -> Iterator[ServerProcess]:
    server = ServerProcess(data, *options)
    try:
        yield server
    finally:
        server.close()
