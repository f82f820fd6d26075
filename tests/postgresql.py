"""A real PostgreSQL for tests: a cluster of its own in a temporary folder, at a free port."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.azurite import free_port
from tests.conftest import find_program, needs_program

# Debian keeps the server's programs off the path, in a folder for each version.
_FOLDERS = "/usr/lib/postgresql/*/bin"
needs_postgresql = needs_program("initdb", "apt-get install postgresql", _FOLDERS)
# PostgreSQL refuses to run as root; its package makes this account.
_ACCOUNT = "postgres"
_PATIENCE = 60.0


@contextmanager
def running() -> Iterator[str]:
    """A cluster until the end of the block.

    Yields:
        The address of an empty database with an owner of its own, for SQLAlchemy.
    """
    with tempfile.TemporaryDirectory(prefix="postgresql-") as name:
        folder, port = Path(name), free_port()
        if os.geteuid() == 0:
            shutil.chown(folder, _ACCOUNT)
        words = ["--pgdata=data", f"--username={_ACCOUNT}", "--auth-local=trust", "--auth-host=scram-sha-256"]
        _run(folder, "initdb", *words, "--encoding=UTF8", "--no-sync").check_returncode()
        with _serving(folder, port):
            yield f"postgresql+asyncpg://prefect:secret@127.0.0.1:{port}/prefect"


@contextmanager
def _serving(folder: Path, port: int) -> Iterator[None]:
    where = [f"--host={folder}", f"--port={port}", f"--username={_ACCOUNT}", "--dbname=postgres"]
    options = [f"--port={port}", "--listen_addresses=127.0.0.1", f"--unix_socket_directories={folder}", "--fsync=off"]
    words = [_program("postgres"), "-D", "data", *options]
    with (folder / "log.txt").open("wb") as log:
        server = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log, **_owner())
    try:
        deadline = time.monotonic() + _PATIENCE
        while _run(folder, "pg_isready", *where).returncode:
            assert server.poll() is None and time.monotonic() < deadline, (folder / "log.txt").read_text()
            time.sleep(0.1)
        role, database = "CREATE ROLE prefect LOGIN PASSWORD 'secret'", "CREATE DATABASE prefect OWNER prefect"
        _run(folder, "psql", *where, "--command", role, "--command", database).check_returncode()
        yield
    finally:
        server.send_signal(signal.SIGINT)  # whoever is still connected is not waited for
        server.wait(_PATIENCE)


def _run(folder: Path, name: str, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([_program(name), *arguments], cwd=folder, stdout=subprocess.DEVNULL, check=False, **_owner())


def _program(name: str) -> str:
    found = find_program(name, _FOLDERS)
    assert found is not None, f"{name} is not installed"
    return found


def _owner() -> dict[str, Any]:
    """Whose processes these are."""
    return {"user": _ACCOUNT, "group": _ACCOUNT, "extra_groups": []} if os.geteuid() == 0 else {}
