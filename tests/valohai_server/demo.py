"""``python -m tests.valohai_server.demo [FLAG ...]``: the training flow with every stage as an execution.

Starts a local Valohai and a real blob service (Azurite) with their data below ``demo/valohai``, runs the flow with the
demo's preset, and stops them. Needs ``azurite-blob`` on the path.
"""

import contextlib
import os
import shutil
import subprocess
import sys

from azure.core.exceptions import ResourceExistsError
from azure.storage.blob import BlobServiceClient

from tests import azurite
from tests.valohai_server.process import ROOT, running

_CONTAINER = "deeplab"


def main(arguments: list[str]) -> int:
    """Run the demo; returns the flow's exit status."""
    if shutil.which("azurite-blob") is None:
        print(
            "error: azurite-blob is not installed; `make tools` installs it, `npm install azurite` too", file=sys.stderr
        )
        return 1
    place = ROOT / "demo" / "valohai"
    place.mkdir(parents=True, exist_ok=True)
    with azurite.running(place / "azurite") as blobs:
        with BlobServiceClient.from_connection_string(blobs.connection_string) as service:
            with contextlib.suppress(ResourceExistsError):  # of an earlier run, whose store is used again
                service.create_container(_CONTAINER)
        account = f"--azure={azurite.ACCOUNT}={blobs.endpoint}"
        with running(place / "server", account) as server:
            print(f"a local Valohai at {server.host}, its store in Azurite at {blobs.endpoint}", flush=True)
            environment = {
                **os.environ,
                **server.variables,
                "AZURE_STORAGE_CONNECTION_STRING": blobs.connection_string,
                "XDG_CACHE_HOME": str(place / "cache"),
            }
            words = ["--preset=demo", "--backend=valohai", f"--store=az://{_CONTAINER}/demo", *arguments]
            return subprocess.run([sys.executable, "-m", "flows.train", *words], cwd=ROOT, env=environment).returncode


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
