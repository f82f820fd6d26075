"""Objects (projects, executions, …) kept in memory and written through to SQLite, so that they outlive the server."""

import copy
import json
import os
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

Record = dict[str, Any]


def new_id() -> str:
    """A UUID that sorts by time, as Valohai's do."""
    return str(uuid.UUID(int=(int(time.time() * 1000) << 80) | int.from_bytes(os.urandom(10), "big")))


def now() -> str:
    """The time as answers write it: ``2026-01-02T03:04:05.123456Z``."""
    return datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Store:
    """Records by kind and id. What it hands out are copies; changes go through :meth:`update`."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=NORMAL")
        self._database.execute(
            "CREATE TABLE IF NOT EXISTS records (kind TEXT, id TEXT, data TEXT, PRIMARY KEY (kind, id))"
        )
        self._records: dict[str, dict[str, Record]] = {}
        for kind, identity, data in self._database.execute("SELECT kind, id, data FROM records ORDER BY rowid"):
            self._records.setdefault(kind, {})[identity] = json.loads(data)

    def close(self) -> None:
        with self.lock:
            self._database.close()

    def add(self, kind: str, record: Record) -> Record:
        """Keep a new record; it gets an ``id`` and a ``ctime`` where it has none."""
        with self.lock:
            record = {"id": new_id(), "ctime": now(), **copy.deepcopy(record)}
            self._write(kind, record)
            return copy.deepcopy(record)

    def add_numbered(self, kind: str, record: Record) -> Record:
        """Keep a new record with the next ``counter`` of its project."""
        with self.lock:
            name = f"{record['project']}/{kind}"
            counter = self._records.get("counter", {}).get(name, {"value": 0})["value"] + 1
            self._write("counter", {"id": name, "value": counter})
            return self.add(kind, {**record, "counter": counter})

    def get(self, kind: str, identity: str) -> Record | None:
        with self.lock:
            return copy.deepcopy(self._records.get(kind, {}).get(identity.lower() if kind != "commit" else identity))

    def update(self, kind: str, identity: str, **changes: Any) -> Record:
        with self.lock:
            record = {**self._records[kind][identity], **copy.deepcopy(changes)}
            self._write(kind, record)
            return copy.deepcopy(record)

    def delete(self, kind: str, identity: str) -> None:
        with self.lock:
            self._records.get(kind, {}).pop(identity, None)
            self._database.execute("DELETE FROM records WHERE kind = ? AND id = ?", (kind, identity))

    def find(self, kind: str, wanted: Callable[[Record], bool] | None = None, **equal: Any) -> list[Record]:
        """Records in order of their making."""
        with self.lock:
            return [
                copy.deepcopy(record)
                for record in self._records.get(kind, {}).values()
                if all(record.get(name) == value for name, value in equal.items()) and (not wanted or wanted(record))
            ]

    def _write(self, kind: str, record: Record) -> None:
        self._database.execute(
            "INSERT INTO records VALUES (?, ?, ?) ON CONFLICT (kind, id) DO UPDATE SET data = excluded.data",
            (kind, record["id"], json.dumps(record)),
        )
        self._records.setdefault(kind, {})[record["id"]] = record
