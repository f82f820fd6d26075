"""Inputs from a real blob service."""

import socket
import subprocess
import time

import pytest

from tests.conftest import needs_program
from tests.unit.valohai_server.conftest import Driver
from tests.valohai_server.inputs import AZURITE_KEY
from tests.valohai_server.process import running

pytestmark = [
    pytest.mark.long,
    needs_program("azurite-blob", "npm install azurite"),
]


@pytest.fixture
def azurite():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--inMemoryPersistence", f"--blobPort={port}", "--skipApiVersionCheck", "--silent"]
    with subprocess.Popen(["azurite-blob", *options], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 30
        while socket.socket().connect_ex(("127.0.0.1", port)) and time.monotonic() < deadline:
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/devstoreaccount1"
        process.terminate()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_one_blob_and_wildcards(azurite, tmp_path):
    from azure.storage.blob import BlobServiceClient

    key = {"account_name": "devstoreaccount1", "account_key": AZURITE_KEY}
    with BlobServiceClient(azurite, credential=key) as service:
        container = service.create_container("deep")
        for name in ("a/one.txt", "a/b/two.txt", "a/b/two.bin"):
            container.upload_blob(name, b"x")
    with running(tmp_path / "data", f"--azure=lab={azurite}") as server, server.client() as client:
        driver = Driver(server, client)

        def found(url):
            ended = driver.finish(driver.say("cd $VH_INPUTS_DIR/kept; find . -type f | sort", inputs={"kept": [url]}))
            return ended["status"], driver.messages(ended, "stdout")

        assert found("azure://lab/deep/a/one.txt") == ("complete", ["./a/one.txt"])
        assert found("azure://lab/deep/a/*.txt") == ("complete", ["./a/one.txt"])
        assert found("azure://lab/deep/a/**.txt") == ("complete", ["./a/b/two.txt", "./a/one.txt"])
        assert found("azure://lab/deep/none") == ("error", [])

        store = client.get("/stores/").json()["results"][0]["id"]
        body = {"project": server.project, "url": "azure://lab/deep/a/one.txt"}
        (datum,) = client.post(f"/stores/{store}/adopt/", json=body).json()["created"].values()
        assert client.get(f"/data/{datum}/").json()["size"] == 1
        refused = client.post(f"/stores/{store}/adopt/", json={**body, "url": "azure://lab/deep/none"})
        assert refused.json()["url"][0]["code"] == "adoptable_file_not_found"
