"""Inputs from a real blob service."""

import pytest

from tests.azurite import needs_azurite
from tests.unit.valohai_server.conftest import Driver
from tests.valohai_server.process import running

pytestmark = [pytest.mark.long, needs_azurite]


def test_one_blob_and_wildcards(azurite, tmp_path):
    container = azurite.create_container()
    for name in ("a/one.txt", "a/b/two.txt", "a/b/two.bin"):
        azurite.upload(container, name, b"x")
    base = f"azure://lab/{container}"
    with running(tmp_path / "data", f"--azure=lab={azurite.endpoint}") as server, server.client() as client:
        driver = Driver(server, client)

        def found(url):
            ended = driver.finish(driver.say("cd $VH_INPUTS_DIR/kept; find . -type f | sort", inputs={"kept": [url]}))
            return ended["status"], driver.messages(ended, "stdout")

        assert found(f"{base}/a/one.txt") == ("complete", ["./a/one.txt"])
        assert found(f"{base}/a/*.txt") == ("complete", ["./a/one.txt"])
        assert found(f"{base}/a/**.txt") == ("complete", ["./a/b/two.txt", "./a/one.txt"])
        assert found(f"{base}/none") == ("error", [])

        store = client.get("/stores/").json()["results"][0]["id"]
        body = {"project": server.project, "url": f"{base}/a/one.txt"}
        (datum,) = client.post(f"/stores/{store}/adopt/", json=body).json()["created"].values()
        assert client.get(f"/data/{datum}/").json()["size"] == 1
        refused = client.post(f"/stores/{store}/adopt/", json={**body, "url": f"{base}/none"})
        assert refused.json()["url"][0]["code"] == "adoptable_file_not_found"
