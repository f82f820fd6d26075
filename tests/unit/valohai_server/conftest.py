"""One server for many tests, and what they do with it over and over."""

import hashlib
import io
import tarfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from tests.valohai_server.process import ServerProcess, running

FINAL = ("complete", "error", "crashed", "stopped")

YAML = """
- step:
    name: Say
    image: python:3.11
    command: sh -c {parameter-value:script}
    parameters:
      - {name: script, type: string, default: "true"}
    inputs:
      - {name: data, optional: true}
      - {name: kept, optional: true, keep-directories: full}
- step:
    name: Every type
    image: python:3.11
    command:
      - export WORD=blue
      - python show.py $WORD {parameters}
    parameters:
      - {name: text, type: string, default: plain}
      - {name: count, type: integer, default: 3, min: 1}
      - {name: rate, type: float, default: 0.5}
      - {name: logtostderr, type: flag, pass-as: "--logtostderr={v}"}
      - {name: plain_flag, type: flag, default: true}
      - {name: note, type: string, optional: true}
      - {name: rates, type: integer, multiple: repeat, default: [6, 12]}
      - {name: names, type: string, multiple: separate, optional: true}
      - {name: choice, type: string, default: a, choices: [a, b]}
    inputs:
      - {name: data, optional: true}
    environment-variables:
      - {name: COLOUR, default: green}
- step:
    name: First fails
    image: python:3.11
    command:
      - cd /nowhere
      - echo still here
- step:
    name: Limited
    image: python:3.11
    command: sleep 30
    time-limit: 1s
"""

SHOW = """
import json, os, sys
print(json.dumps({"arguments": sys.argv[1:], "colour": os.environ.get("COLOUR"), "folder": os.getcwd()}))
print("a plain line")
print("to stderr", file=sys.stderr)
open(os.environ["VH_OUTPUTS_DIR"] + "/shown.txt", "w").write(repr(sys.argv[1:]))
"""


def package(files: dict[str, str]) -> bytes:
    """A gzipped tar."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return buffer.getvalue()


def import_package(server: ServerProcess, client: httpx.Client, content: bytes) -> str:
    answer = client.post(
        f"/projects/{server.project}/import-package/",
        files={"data": ("data.tgz", content, "application/gzip")},
        data={"description": "", "yaml_path": "valohai.yaml"},
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["identifier"] == "~" + hashlib.sha256(content).hexdigest()
    return answer.json()["identifier"]


class Driver:
    """A server, a client of it and a commit with the steps above."""

    def __init__(self, server: ServerProcess, client: httpx.Client) -> None:
        self.server, self.client = server, client
        self.commit = import_package(server, client, package({"valohai.yaml": YAML, "show.py": SHOW}))

    def submit(self, step: str, **fields: Any) -> dict[str, Any]:
        body = {"project": self.server.project, "commit": self.commit, "step": step, "inputs": {}, "parameters": {}}
        answer = self.client.post("/executions/", json={**body, **fields})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def say(self, script: str, **fields: Any) -> dict[str, Any]:
        return self.submit("Say", parameters={"script": script}, **fields)

    def read(self, execution: dict[str, Any]) -> dict[str, Any]:
        return self.client.get(f"/executions/{execution['id']}/").raise_for_status().json()

    def until(self, execution: dict[str, Any], holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            current = self.read(execution)
            if holds(current):
                return current
            time.sleep(0.05)
        raise AssertionError(f"{current['status']}: {self.messages(execution)}")

    def finish(self, execution: dict[str, Any]) -> dict[str, Any]:
        return self.until(execution, lambda current: current["status"] in FINAL)

    def events(self, execution: dict[str, Any], **query: Any) -> dict[str, Any]:
        return self.client.get(f"/executions/{execution['id']}/events/", params=query).raise_for_status().json()

    def messages(self, execution: dict[str, Any], stream: str | None = None) -> list[str]:
        found = self.events(execution, limit=0)["events"]
        return [event["message"] for event in found if stream in (None, event["stream"])]

    def outputs(self, execution: dict[str, Any]) -> dict[str, dict[str, Any]]:
        rows = self.client.get("/data/", params={"output_execution": execution["id"]}).json()["results"]
        return {row["name"]: row for row in rows}

    def content(self, datum: dict[str, Any]) -> bytes:
        url = self.client.get(f"/data/{datum['id']}/download/").json()["url"]
        return httpx.get(url).raise_for_status().content


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with running(tmp_path_factory.mktemp("valohai") / "data", "--grace=2", "--workers=4") as server:
        yield server


@pytest.fixture
def driver(shared_server: ServerProcess) -> Iterator[Driver]:
    with shared_server.client() as client:
        yield Driver(shared_server, client)
    shared_server.clear_faults()


@pytest.fixture
def own(tmp_path, request: pytest.FixtureRequest) -> Iterator[Driver]:
    """A server of the test's own; its options come from ``@pytest.mark.parametrize("own", […], indirect=True)``."""
    with running(tmp_path / "data", "--grace=2", *getattr(request, "param", ())) as server, server.client() as client:
        yield Driver(server, client)
