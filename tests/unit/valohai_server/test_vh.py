"""The real client drives the server."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import needs_program
from tests.unit.valohai_server.conftest import SHOW, YAML
from tests.valohai_server.process import ServerProcess, running

pytestmark = [
    pytest.mark.long,
    needs_program("vh", "pip install valohai-cli==0.37.0"),
]

MORE = """
- step:
    name: With utils
    image: python:3.11
    command: VH_PYTHON utils.py {parameters}
    parameters:
      - {name: rate, type: float, default: 0.5}
    inputs:
      - {name: data, optional: true}
- task:
    name: Sweep
    step: Every type
    type: grid_search
    parameters:
      - {name: count, style: multiple, rules: {items: [1, 2, 3]}}
- pipeline:
    name: Two
    parameters:
      - {name: words, default: hello, targets: [first.parameter.text]}
    nodes:
      - {name: first, type: execution, step: Every type}
      - {name: second, type: execution, step: Every type, override: {inputs: [{name: data}]}}
    edges:
      - [first.output.shown.txt, second.input.data]
- pipeline:
    name: Long
    nodes:
      - name: only
        type: execution
        step: Say
        override: {parameters: [{name: script, default: sleep 60}]}
    edges: []
"""

UTILS = """
import valohai
valohai.prepare(step="With utils", default_parameters={"rate": 1.0}, default_inputs={"data": []})
with valohai.logger() as logger:
    logger.log("rate", valohai.parameters("rate").value)
    logger.log("text", open(valohai.inputs("data").path()).read())
    logger.log("counter", valohai.execution().config.counter)
path = valohai.outputs("sub").path("model.bin")
open(path, "w").write("model")
valohai.outputs("sub").live_upload("model.bin")
valohai.set_status_detail("nearly there")
"""


class Vh:
    """``vh`` in a folder of its own."""

    def __init__(self, folder: Path, server: ServerProcess) -> None:
        self.folder, self.server = folder, server
        config = folder.parent / "config"
        config.mkdir()
        kept = {name: value for name, value in os.environ.items() if not name.startswith("VALOHAI_")}
        self.bare = {**kept, "VALOHAI_CONFIG_DIR": str(config), "HOME": str(folder.parent), "NO_COLOR": "1"}
        self.environment = {**self.bare, **server.variables}

    def start(self, *arguments: str, bare: bool = False) -> "subprocess.Popen[str]":
        environment = self.bare if bare else self.environment
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(["vh", *arguments], cwd=self.folder, env=environment, **pipes)

    def __call__(self, *arguments: str, bare: bool = False, code: int = 0) -> str:
        with self.start(*arguments, bare=bare) as process:
            output, _ = process.communicate(timeout=60)
        assert process.returncode == code, output
        assert "Traceback" not in output
        assert "API Error" not in output
        return output

    def until(self, kind: str, counter: int, *statuses: str) -> dict:
        deadline = time.monotonic() + 60
        with self.server.client() as client:
            while True:
                record = client.get(f"/{kind}/{self.server.project}:{counter}/").raise_for_status().json()
                if record["status"] in statuses:
                    return record
                assert time.monotonic() < deadline, record
                time.sleep(0.1)


@pytest.fixture(scope="module")
def vh(tmp_path_factory):
    base = tmp_path_factory.mktemp("vh")
    folder = base / "project"
    folder.mkdir()
    python = Path(shutil.which("vh")).resolve().with_name("python")
    (folder / "valohai.yaml").write_text(YAML + MORE.replace("VH_PYTHON", str(python)))
    (folder / "show.py").write_text(SHOW)
    (folder / "utils.py").write_text(UTILS)
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q", "-b", "main"], ["add", "."], ["commit", "-q", "-m", "first"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    with running(base / "data", "--grace=2", f"--git={folder}") as server:
        yield Vh(folder, server)


def test_account_and_project(vh):
    assert "No errors" in vh("lint")
    assert "deeplab" in vh("project", "list")
    assert "deeplab" in vh("project", "status")
    vh("project", "fetch")
    assert "main" in vh("project", "commits")
    assert "local-cpu" in vh("environments")
    vh("project", "environment-variables", "create", "WORD=blue")
    assert "blue" in vh("project", "environment-variables", "list")


@pytest.mark.parametrize("password", [False, True])
def test_login_and_link(vh, password):
    given = ("-u", "vh", "-p", "valohai") if password else ("-t", vh.server.token)
    vh("login", "--host", vh.server.host, *given, bare=True)
    vh("project", "link", "deeplab", "-y", bare=True)
    assert "deeplab" in vh("project", "status", bare=True)
    vh("logout", "-y", bare=True)


def test_an_execution_from_its_start_to_its_end(vh):
    (vh.folder / "note.txt").write_text("not committed")
    datum = vh.server.upload("file.txt", b"content")
    values = ["--text=a b", "--count=4", "--rate=0.25", "--logtostderr=true", "--plain-flag=false"]
    values += ["--rates=1", "--rates=2", "--names=x", "--names=y", "--choice=b", f"--data={datum}"]
    output = vh("exec", "run", "--adhoc", "every", *values, "--title=hello", "--tag=key", "--var=EXTRA=1")
    assert "Execution #1 created" in output
    ended = vh.until("executions", 1, "complete", "error")
    assert ended["status"] == "complete"
    assert ended["tags"] == ["key"]
    assert ended["cumulative_metadata"]["arguments"] == [
        "blue",
        "--text=a b",
        "--count=4",
        "--rate=0.25",
        "--logtostderr=True",
        "--rates=1",
        "--rates=2",
        "--names=x,y",
        "--choice=b",
    ]
    assert "hello" in vh("exec", "info", "1")
    assert "Every type" in vh("exec", "list")
    assert "a plain line" in vh("exec", "logs", "1", "--all")
    vh("exec", "outputs", "1", "--download", str(vh.folder.parent / "fetched"))
    assert "--text=a b" in (vh.folder.parent / "fetched" / "shown.txt").read_text()
    assert "green" in vh("exec", "summarize", "1")
    assert "shown.txt" in vh("data", "list")
    vh("alias", "list")


def test_a_commit_is_run_and_stopped(vh):
    vh("project", "fetch")
    head = subprocess.check_output(["git", "rev-parse", "HEAD"], cwd=vh.folder, text=True)[:12]
    vh("exec", "run", f"--commit={head}", "say", "--script=echo ready; sleep 60")
    counter = _latest(vh, "executions")
    vh.until("executions", counter, "started")
    watching = vh.start("exec", "watch", str(counter))
    time.sleep(2)
    watching.send_signal(signal.SIGINT)
    assert "ready" in watching.communicate(timeout=20)[0]
    vh("exec", "stop", str(counter))
    vh.until("executions", counter, "stopped")
    vh("exec", "delete", str(counter))


def test_a_pipeline(vh):
    output = vh("pipeline", "run", "--adhoc", "two", "--words=from outside")
    assert "Pipeline =1 queued" in output or "=1" in output
    pipeline = vh.until("pipelines", 1, "complete", "error", "stopped")
    assert pipeline["status"] == "complete", pipeline["log"]
    with vh.server.client() as client:
        first = client.get(f"/executions/{pipeline['nodes'][0]['execution']['id']}/").json()
        second = client.get(f"/executions/{pipeline['nodes'][1]['execution']['id']}/").json()
    assert first["parameters"]["text"] == "from outside"
    assert second["inputs"] == [{"name": "data", "urls": [f"datum://{first['outputs'][0]['id']}"]}]
    assert "Two" in vh("pipeline", "list")
    vh("pipeline", "run", "--adhoc", "long")
    vh.until("pipelines", 2, "started")
    vh("pipeline", "stop", "2")
    vh.until("pipelines", 2, "stopped")


def test_a_task(vh):
    vh("task", "run", "--adhoc", "sweep")
    task = vh.until("tasks", 1, "complete", "error")
    assert task["status_summary"]["complete_count"] == 3
    assert "1" in vh("task", "list")


def test_valohai_utils_inside_an_execution(vh):
    python = Path(shutil.which("vh")).resolve().with_name("python")
    if subprocess.run([python, "-c", "import valohai"], capture_output=True, check=False).returncode:
        pytest.skip("valohai-utils is not installed beside vh")
    datum = vh.server.upload("file.txt", b"content")
    vh("exec", "run", "--adhoc", "with", "--rate=0.75", f"--data={datum}")
    counter = _latest(vh, "executions")
    ended = vh.until("executions", counter, "complete", "error")
    assert ended["status"] == "complete", ended["events"]
    assert ended["cumulative_metadata"] == {"rate": 0.75, "text": "content", "counter": counter}
    assert [one["name"] for one in ended["outputs"]] == ["sub/model.bin"]
    assert ended["status_detail"] == "nearly there"


def _latest(vh: Vh, kind: str) -> int:
    with vh.server.client() as client:
        return client.get(f"/{kind}/{vh.server.project}:latest/").json()["counter"]
