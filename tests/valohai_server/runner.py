"""The queue and the life of each execution, from ``created`` to its final status."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path
from typing import Any

from tests.valohai_server import config_files, graph, tasks
from tests.valohai_server.commands import as_script
from tests.valohai_server.commits import config_of, unpack
from tests.valohai_server.conditions import holds
from tests.valohai_server.events import parse_time
from tests.valohai_server.executions import request_stop
from tests.valohai_server.inputs import InputError, bring
from tests.valohai_server.outputs import take_all, take_live
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, now

HERE = Path(__file__).parent
FOLDERS = ("repository", "inputs", "outputs", "config")
TICK = 0.1


class Runner:
    """Starts what waits, one thread for each execution that runs."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._threads: dict[str, threading.Thread] = {}
        self._closing = threading.Event()
        self._scheduler = threading.Thread(target=self._schedule, name="scheduler", daemon=True)

    def start(self) -> None:
        """Take up what an earlier server left, then serve the queue."""
        for execution in self.server.store.find("execution", lambda one: one["status"] in ("started", "stopping")):
            self._begin(execution)
        self._scheduler.start()

    def close(self) -> None:
        """Leave: commands go on under their supervisors."""
        self._closing.set()
        self.server.wake.set()
        self._scheduler.join(5)
        for thread in list(self._threads.values()):
            thread.join(5)

    def _schedule(self) -> None:
        while not self._closing.is_set():
            try:
                self._tick()
            except Exception as error:  # one bad record must not end the service of the others
                print(f"scheduler: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
            self.server.wake.wait(TICK)
            self.server.wake.clear()

    def _tick(self) -> None:
        store = self.server.store
        graph.advance(self.server)
        tasks.advance(self.server)
        for execution in store.find("execution", status="created"):
            with store.lock:
                if (store.get("execution", execution["id"]) or {}).get("status") == "created":
                    store.update("execution", execution["id"], status="queued", qtime=now())
        self._threads = {identity: thread for identity, thread in self._threads.items() if thread.is_alive()}
        waiting = store.find("execution", status="queued")
        for execution in sorted(waiting, key=lambda one: (-one["priority"], one["ctime"])):
            if len(self._threads) >= self.server.settings.workers:
                break
            age = (parse_time(now()) - parse_time(execution["ctime"])).total_seconds()
            if age >= execution["delay"]:
                with store.lock:
                    if (store.get("execution", execution["id"]) or {}).get("status") != "queued":
                        continue
                    execution = store.update("execution", execution["id"], status="started", start_time=now())
                self._begin(execution)

    def _begin(self, execution: Record) -> None:
        life = Life(self.server, execution, self._closing)
        thread = threading.Thread(target=life.run, name=f"execution {execution['counter']}", daemon=True)
        self._threads[execution["id"]] = thread
        thread.start()


class Life:
    """One execution from its start to its end; taken up again after a restart of the server."""

    def __init__(self, server: Server, execution: Record, closing: threading.Event) -> None:
        self.server, self.execution, self.closing = server, execution, closing
        self.folder = server.execution_folder(execution["id"])
        self.outputs = self.folder / "valohai" / "outputs"
        self.log = server.log(execution["id"])
        self.child: subprocess.Popen[bytes] | None = None

    def run(self) -> None:
        try:
            if not self._was_launched():
                self._prepare()
                if self._status() == "stopping":
                    self._finish({"code": None, "reason": "stopped"})
                    return
                self._launch()
            ending = self._watch()
            if ending is not None:
                self._finish(ending)
        except InputError as error:
            self._finish({"code": 1, "reason": "input", "message": str(error)})
        except Exception as error:  # shown to the person who reads the log, as a platform does
            if self.closing.is_set():
                return  # the next server takes it up
            self._finish({"code": 1, "reason": "server", "message": f"{type(error).__name__}: {error}"})

    def _was_launched(self) -> bool:
        """Whether an earlier server started the command; one that was killed just then is given a moment."""
        deadline = time.monotonic() + 2
        while (self.folder / "spec.json").exists() and time.monotonic() < deadline:
            if (self.folder / "started").exists():
                return True
            time.sleep(TICK / 2)
        return (self.folder / "started").exists()

    def _status(self) -> str:
        return (self.server.store.get("execution", self.execution["id"]) or self.execution)["status"]

    def _prepare(self) -> None:
        self.log.append("Starting job")
        shutil.rmtree(self.folder / "valohai", ignore_errors=True)
        for name in FOLDERS:
            (self.folder / "valohai" / name).mkdir(parents=True)
        commit = self.server.store.get("commit", f"{self.execution['project']}/{self.execution['commit']}")
        if commit is None:
            raise InputError(f"commit {self.execution['commit']} is gone")
        unpack(self.server, commit, self.folder / "valohai" / "repository")
        step = config_of(commit).steps[self.execution["step"]]
        if self.execution["inputs"]:
            self.log.append("Downloading inputs")
        described = bring(self.server, self.execution["inputs"], step.inputs, self.folder / "valohai" / "inputs")
        for one in described.values():
            for file in one["files"]:
                sums = ", ".join(f"{name} {value}" for name, value in file["checksums"].items())
                self.log.append(f"Input {file['path']}: {file['size']} bytes, {sums}")
        self._write_config(described)

    def _write_config(self, inputs: dict[str, Any]) -> None:
        config = self.folder / "valohai" / "config"
        if self._root() != "/valohai":
            for one in inputs.values():
                for file in one["files"]:
                    file["path"] = file["path"].replace("/valohai", self._root(), 1)
        config_files.write(config, "parameters", self.execution["parameters"])
        config_files.write(config, "inputs", inputs)
        config_files.write(config, "execution", config_files.description(self.server, self.execution))
        url = f"{self.server.address}/agent/{self.execution['id']}/status-detail/"
        config_files.write(config, "api", {"set_status_detail": {"url": url, "method": "POST", "headers": {}}})
        config_files.write(config, "runtime", {})

    def _root(self) -> str:
        return "/valohai" if _namespace(self.server.settings.paths) else str(self.folder / "valohai")

    def _launch(self) -> None:
        scripts = self.folder / "scripts"
        scripts.mkdir(exist_ok=True)
        for name, text in as_script(self.execution["pieces"], self.server.settings.commands).items():
            if self._root() != "/valohai":
                text = text.replace("/valohai/", self._root() + "/")
            (scripts / name).write_text(text)
        shell = shutil.which("bash") or "/bin/sh"
        variables = config_files.environment(self.execution, self._root())
        variables["SHELL_OF_STEPS"] = shell
        main = (scripts / "main").read_text()
        argv = [*(main.splitlines()[0][2:].split() if main.startswith("#!") else [shell]), str(scripts / "main")]
        prefix = _namespace(self.server.settings.paths)
        if prefix:
            argv = [*prefix, "sh", str(HERE / "namespace.sh"), str(self.folder), *argv]
        spec = {
            "argv": argv,
            "cwd": str(self.folder / "valohai" / "repository"),
            "environment": variables,
            "time_limit": self.execution["time_limit"],
            "no_output_timeout": self.execution["no_output_timeout"],
            "grace": self.server.settings.grace,
        }
        (self.folder / "spec.json").write_text(json.dumps(spec))
        (self.folder / "spec.json").chmod(0o600)
        self.log.append("Running command: " + " ; ".join(self.execution["pieces"]))
        self.child = subprocess.Popen(
            [sys.executable, "-I", "-S", str(HERE / "supervisor.py"), str(self.folder)],
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "supervisor.log").open("ab"),
            start_new_session=True,
        )

    def _watch(self) -> dict[str, Any] | None:
        """How it ended; None when the server leaves before."""
        ending = self.folder / "exit.json"
        while not ending.exists():
            if self.closing.wait(TICK / 2):
                return None
            record = self.server.store.get("execution", self.execution["id"]) or self.execution
            if record["status"] == "stopping":
                (self.folder / "stop").touch()
            elif record["stop_expression"] and holds(record["stop_expression"], self.log.cumulative()):
                self.log.append(f"Stop condition holds: {record['stop_expression']}")
                request_stop(self.server, record)
            take_live(self.server, self.execution, self.outputs)
            if not self._alive() and not ending.exists():
                return {"code": None, "reason": "lost"}
        return json.loads(ending.read_text())

    def _alive(self) -> bool:
        """Whether a supervisor holds its lock, or has just been started."""
        if self.child is not None and self.child.poll() is None:
            return True
        if not (self.folder / "alive").exists():
            return False
        with (self.folder / "alive").open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def _finish(self, ending: dict[str, Any]) -> None:
        if self.child is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.child.wait(5)
        status, message = _verdict(ending)
        if self.outputs.exists() and ending["reason"] != "lost":
            take_all(self.server, self.execution, self.outputs)
        said = {event["message"] for event in self.log.events() if event["stream"] == "status"}
        for line in (message, f"Job ended: {status}"):
            if line not in said:  # a server that was killed at this very point has said it
                self.log.append(line)
        for name in ("valohai", "scripts", "spec.json"):
            path = self.folder / name
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
        self.server.store.update("execution", self.execution["id"], status=status, end_time=now())
        self.server.wake.set()


def _verdict(ending: dict[str, Any]) -> tuple[str, str]:
    reason, code = ending["reason"], ending["code"]
    if reason == "stopped":
        return "stopped", "Stopped on request"
    if reason == "lost":
        return "crashed", "The machine was lost"
    if reason == "time-limit":
        return "error", "Time limit reached"
    if reason == "no-output":
        return "error", "No output for too long"
    if "message" in ending:
        return "error", ending["message"]
    return ("complete" if code == 0 else "error"), f"Command exited with code {code}"


@cache
def _namespace(paths: str) -> tuple[str, ...]:
    """The command that opens a private mount namespace; empty where paths are rewritten."""
    if paths == "rewrite":
        return ()
    as_root: tuple[str, ...] = ("unshare", "--mount", "--propagation", "private")
    for prefix in (as_root, ("unshare", "--user", "--map-root-user", "--mount", "--propagation", "private")):
        if os.geteuid() != 0 and prefix is as_root:
            continue
        with contextlib.suppress(OSError):
            trial = [*prefix, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
            if subprocess.run(trial, capture_output=True, check=False).returncode == 0:
                return prefix
    if paths == "namespace":
        raise RuntimeError("this machine allows no private mount namespace: use --paths=rewrite")
    return ()


def kill_all(data: Path, wait: float = 5.0) -> None:
    """End every command and supervisor that runs under a data folder (its server may be gone)."""
    for folder in (data / "executions").glob("*"):
        if not (folder / "supervisor").exists() or (folder / "exit.json").exists():
            continue
        with contextlib.suppress(OSError, ValueError), (folder / "alive").open() as alive:
            try:
                fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:  # it lives: the number is its own
                os.kill(int((folder / "supervisor").read_text()), 9)
                os.killpg(int((folder / "process").read_text()), 9)
                deadline = time.monotonic() + wait
                while time.monotonic() < deadline:
                    with contextlib.suppress(OSError):
                        fcntl.flock(alive, fcntl.LOCK_SH | fcntl.LOCK_NB)
                        break
                    time.sleep(0.02)
