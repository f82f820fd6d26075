"""``python -m deployments.serve`` in a folder of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from deployments.project_file import ROOT
from tests.integration.deployed_runs import Runs, client_of
from tests.processes import descendants, left_of


@dataclass
class Served(Runs):
    """A server with its UI, a worker and the deployments.

    Attributes:
        process: ``deployments.serve``.
        home: folder of the database and the logs.
    """

    process: subprocess.Popen[str]
    home: Path

    @property
    def url(self) -> str:
        """Of the UI."""
        return str(self.client.base_url).removesuffix("/api/")


@contextmanager
def serving(folder: Path, *options: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve until the end of the block, after which no process is left.

    Args:
        folder: the current folder of the command; its home is below.
        options: more of its command line.
        environment: of the command; ours if None.
    """
    home = folder / "prefect"
    words = [sys.executable, "-m", "deployments.serve", f"--home={home}", "--port=0", *options]
    # Another server's address counts for nothing.
    given = {**(environment or os.environ), "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "http://127.0.0.1:9/api"}
    process = subprocess.Popen(
        words,
        cwd=folder,
        env=given,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("export PREFECT_API_URL="):
                break
        else:
            pytest.fail("".join(lines))
        with client_of(lines[-1].partition("=")[2].split()[0]) as client:
            yield Served(client, process, home)
    finally:
        family = descendants(process.pid)
        process.terminate()
        process.wait(90)
        process.stdout.close()
    assert left_of(family, 20) == []
