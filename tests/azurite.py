"""A real blob service for tests: Azurite on a free port, its data in a temporary folder. A plugin of pytest."""

import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import needs_program
from tests.valohai_server.inputs import AZURITE_KEY

ACCOUNT = "devstoreaccount1"
needs_azurite = needs_program("azurite-blob", "npm install azurite")


@dataclass(frozen=True)
class Azurite:
    """A running blob service.

    Attributes:
        endpoint: its URL, which ends in the account.
        certificate: what its clients must trust, if it speaks TLS.
    """

    endpoint: str
    certificate: Path | None = None

    @property
    def connection_string(self) -> str:
        """What opens it with the account key."""
        return f"AccountName={ACCOUNT};AccountKey={AZURITE_KEY};BlobEndpoint={self.endpoint}"

    def create_container(self, *, public: bool = False) -> str:
        """Create a container; returns its name.

        Args:
            public: whether anybody may read its blobs.
        """
        name = f"deep-{uuid.uuid4().hex[:12]}"
        with self._service() as service:
            service.create_container(name, public_access="blob" if public else None)
        return name

    def upload(self, container: str, name: str, content: bytes) -> None:
        """Write a blob, replacing what has its name."""
        with self._service() as service, service.get_blob_client(container, name) as blob:
            blob.upload_blob(content, overwrite=True)

    def sign(self, container: str, name: str, *, hours: float = 1.0, permission: str = "r") -> str:
        """A signature (SAS) for a blob: a query without its ``?``. With negative hours it has expired."""
        from azure.storage.blob import generate_blob_sas

        expiry = datetime.now(timezone.utc) + timedelta(hours=hours)
        key: dict[str, Any] = {"account_key": AZURITE_KEY, "permission": permission, "expiry": expiry}
        signature: str = generate_blob_sas(ACCOUNT, container, name, **key)
        return signature

    @property
    def reading_connection_string(self) -> str:
        """What opens it for an hour, to read and list."""
        from azure.storage.blob import generate_account_sas

        expiry = datetime.now(timezone.utc) + timedelta(hours=1)
        scope: dict[str, Any] = {"resource_types": "sco", "permission": "rl", "expiry": expiry}
        signature = generate_account_sas(ACCOUNT, AZURITE_KEY, **scope)
        return f"BlobEndpoint={self.endpoint};SharedAccessSignature={signature}"

    def _service(self) -> Any:
        from azure.storage.blob import BlobServiceClient

        verify = {"connection_verify": str(self.certificate)} if self.certificate else {}
        key = {"account_name": ACCOUNT, "account_key": AZURITE_KEY}
        return BlobServiceClient(self.endpoint, credential=key, **verify)


@contextmanager
def running(folder: Path, *options: str, certificate: Path | None = None) -> Iterator[Azurite]:
    """Azurite with its data in a folder, until the end of the block.

    Args:
        folder: where it keeps its blobs.
        options: more of its command line.
        certificate: of its TLS, where the options switch that on.
    """
    port = free_port()
    # Without the third it refuses the versions that new clients speak; without the fourth it calls home.
    quiet = ("--silent", f"--location={folder}", "--skipApiVersionCheck", "--disableTelemetry")
    command = ["azurite-blob", "--blobHost=127.0.0.1", f"--blobPort={port}", *quiet, *options]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            yield Azurite(f"{'https' if certificate else 'http'}://127.0.0.1:{port}/{ACCOUNT}", certificate)
        finally:
            process.terminate()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with closing(socket.socket()) as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"azurite-blob does not listen at port {port} after 30 s")


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """One service for all tests of a run; each makes containers of its own."""
    with running(tmp_path_factory.mktemp("azurite")) as service:
        yield service
