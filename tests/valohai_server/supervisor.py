"""Runs one execution's command and writes down what it says and how it ends.

A process of its own, in a session of its own, without any import from the project: it goes on when the server dies,
and the server that is started next finds in the folder all that it missed.

Files in the folder: ``spec.json`` (what to run), ``alive`` (locked while this process lives), ``started`` (made
before the command), ``stop`` (made by the server: end the command), ``events.jsonl`` (one log line a line),
``exit.json`` (written last, by rename).
"""

import contextlib
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import IO

INTERVAL = 0.05


class Supervisor:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.spec = json.loads((folder / "spec.json").read_text())
        self.last_output = time.monotonic()
        self._events = (folder / "events.jsonl").open("ab", buffering=0)
        self._lock = threading.Lock()

    def run(self) -> dict[str, object]:
        """How the command ended: its exit code and the reason (exit, stopped, time-limit, no-output)."""
        process = subprocess.Popen(
            self.spec["argv"],
            cwd=self.spec["cwd"],
            env=self.spec["environment"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        (self.folder / "process").write_text(str(process.pid))
        readers = [
            threading.Thread(target=self._read, args=(stream, name), daemon=True)
            for stream, name in ((process.stdout, "stdout"), (process.stderr, "stderr"))
        ]
        for reader in readers:
            reader.start()
        reason = self._wait(process)
        if reason != "exit":
            self._end(process.pid, process)
        _kill(process.pid, signal.SIGKILL)
        code = process.wait()
        for reader in readers:
            reader.join(5)
        return {"code": code, "reason": reason}

    def _wait(self, process: "subprocess.Popen[bytes]") -> str:
        start = self.last_output = time.monotonic()
        while process.poll() is None:
            if (self.folder / "stop").exists():
                return "stopped"
            current = time.monotonic()
            if self.spec["time_limit"] and current - start > self.spec["time_limit"]:
                return "time-limit"
            if self.spec["no_output_timeout"] and current - self.last_output > self.spec["no_output_timeout"]:
                return "no-output"
            time.sleep(INTERVAL)
        return "exit"

    def _end(self, group: int, process: "subprocess.Popen[bytes]") -> None:
        _kill(group, signal.SIGTERM)
        deadline = time.monotonic() + self.spec["grace"]
        while time.monotonic() < deadline:
            process.poll()
            if not _lives(group):
                return
            time.sleep(INTERVAL)

    def _read(self, stream: "IO[bytes]", name: str) -> None:
        rest = b""
        with contextlib.suppress(OSError, ValueError):
            while chunk := os.read(stream.fileno(), 65536):
                self.last_output = time.monotonic()
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.say(name, line.rstrip(b"\r").decode(errors="replace"))
        if rest:
            self.say(name, rest.decode(errors="replace"))

    def say(self, stream: str, message: str) -> None:
        with self._lock:
            moment = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%f")
            event = {"time": moment, "stream": stream, "message": message}
            self._events.write(json.dumps(event).encode() + b"\n")


def _kill(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, number)


def _lives(group: int) -> bool:
    """Whether any process of the group still runs; one that has ended but that nobody asked for does not."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, number = status.read_text().rpartition(")")[2].split()[:3]
            if int(number) == group and state not in "ZX":
                return True
    return False


def main() -> None:
    folder = Path(sys.argv[1])
    with (folder / "alive").open("w") as alive:
        try:
            fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return  # another one watches this execution already
        if (folder / "exit.json").exists():
            return
        (folder / "supervisor").write_text(str(os.getpid()))
        (folder / "started").touch()
        try:
            ending = Supervisor(folder).run()
        except OSError as error:
            ending = {"code": 127, "reason": "exit", "message": str(error)}
        (folder / "exit.json.part").write_text(json.dumps(ending))
        (folder / "exit.json.part").replace(folder / "exit.json")


if __name__ == "__main__":
    main()
