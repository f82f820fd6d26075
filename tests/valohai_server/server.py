"""The state that all handlers share."""

import secrets
import threading
from pathlib import Path
from typing import Any

from tests.valohai_server.events import EventLog
from tests.valohai_server.faults import Faults
from tests.valohai_server.settings import Settings
from tests.valohai_server.store import Record, Store

ENVIRONMENTS = (("Local CPU", "local-cpu"), ("Local large", "local-large"))


class Server:
    """Settings, stored objects, logs and faults of one server."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.folder = settings.data.resolve()
        for name in ("executions", "packages", "blobs"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        self.store = Store(self.folder / "state.sqlite")
        self.faults = Faults()
        self.requests: list[dict[str, Any]] = []
        self.wake = threading.Event()
        self.address = ""
        self._logs: dict[str, EventLog] = {}
        self._logs_lock = threading.Lock()
        self._populate()

    def _populate(self) -> None:
        if not self.store.find("user"):
            token = self.settings.token or secrets.token_hex(20)
            self.store.add("user", {"id": "1", "username": self.settings.username, "token": token})
            self.store.add("project", {"name": self.settings.project, "description": ""})
            for name, slug in ENVIRONMENTS:
                self.store.add("environment", {"name": name, "slug": slug})
            self.store.add("store", {"name": "Local", "type": "azure"})

    @property
    def user(self) -> Record:
        return self.store.find("user")[0]

    @property
    def first_project(self) -> Record:
        return self.store.find("project")[0]

    def execution_folder(self, identity: str) -> Path:
        return self.folder / "executions" / identity

    def blob(self, datum: str) -> Path:
        """Where the bytes of a datum lie."""
        return self.folder / "blobs" / datum

    def log(self, identity: str) -> EventLog:
        """The log of an execution."""
        with self._logs_lock:
            if identity not in self._logs:
                folder = self.execution_folder(identity)
                folder.mkdir(exist_ok=True)
                self._logs[identity] = EventLog(folder / "events.jsonl")
            return self._logs[identity]

    def environment(self, name: str | None) -> Record | None:
        """By id, slug or name; the default one for None."""
        found = self.store.find("environment")
        if not name or name == "PROJECT_DEFAULT":
            return found[0]
        return next((one for one in found if name in (one["id"], one["slug"], one["name"])), None)
