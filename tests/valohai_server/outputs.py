"""Taking an execution's outputs: live ones at once, the rest at its end."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.valohai_server.data import add_datum, set_metadata
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record

SIDECAR = ".metadata.json"
LINES = "valohai.metadata.jsonl"


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _is_sidecar(folder: Path, path: Path) -> bool:
    return path == folder / LINES or path.name.endswith(SIDECAR)


def take_live(server: Server, execution: Record, folder: Path) -> None:
    """Take what was made read-only."""
    for path in _files(folder):
        try:
            sealed = not path.stat().st_mode & 0o222
        except FileNotFoundError:
            continue
        if sealed and not _is_sidecar(folder, path):
            datum = _take(server, execution, folder, path)
            server.log(execution["id"]).append(f"Uploaded output {datum['name']} (live)")


def take_all(server: Server, execution: Record, folder: Path) -> None:
    """Take everything, then what side-cars say."""
    for path in _files(folder):
        if not _is_sidecar(folder, path):
            datum = _take(server, execution, folder, path)
            server.log(execution["id"]).append(f"Uploaded output {datum['name']}")
    for name, metadata in _sidecars(folder):
        for datum in server.store.find("datum", output_execution=execution["id"], name=name):
            set_metadata(server, datum, metadata)


def _take(server: Server, execution: Record, folder: Path, path: Path) -> Record:
    name = path.relative_to(folder).as_posix()
    return add_datum(server, execution["project"], name, path, output_execution=execution["id"])


def _sidecars(folder: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in _files(folder):
        text = path.read_text(errors="replace")
        if path == folder / LINES:
            for line in text.splitlines():
                fields = _object(line)
                yield str(fields.get("file")), _as_object(fields.get("metadata"))
        elif path.name.endswith(SIDECAR):
            yield path.relative_to(folder).as_posix().removesuffix(SIDECAR), _object(text)


def _object(text: str) -> dict[str, Any]:
    try:
        return _as_object(json.loads(text))
    except ValueError:
        return {}


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
