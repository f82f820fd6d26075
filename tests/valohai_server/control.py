"""What only tests ask for, outside Valohai's API: faults, the log of requests, uploads, lost machines."""

import contextlib
import json
import os
from typing import Any

from tests.valohai_server.answers import ApiError, Call, invalid, not_found
from tests.valohai_server.data import add_datum


def handle(call: Call) -> Any:
    """Answer ``METHOD /control/…``."""
    subject = call.path.removeprefix("/control/").strip("/")
    match call.method, subject.split("/"):
        case "POST", ["faults"]:
            return _add_faults(call)
        case "GET", ["faults"]:
            return call.server.faults.listing()
        case "DELETE", ["faults"]:
            return call.server.faults.clear()
        case "GET", ["requests"]:
            return call.server.requests
        case "DELETE", ["requests"]:
            return call.server.requests.clear()
        case "POST", ["data"]:
            return _upload(call)
        case "POST", ["executions", identity, "lose"]:
            return _lose(call, identity)
        case _:
            raise not_found()


def _add_faults(call: Call) -> dict[str, Any]:
    content = json.loads(call.content)
    for fields in content if isinstance(content, list) else [content]:
        try:
            call.server.faults.add(fields)
        except (TypeError, ValueError) as error:
            raise invalid("fault", str(error)) from None
    return {"ok": True}


def _upload(call: Call) -> dict[str, Any]:
    """Make a datum of the body; ``name`` is in the query."""
    project = call.query.get("project") or call.server.first_project["id"]
    part = call.server.folder / f"upload-{os.urandom(8).hex()}"
    part.write_bytes(call.content)
    datum = add_datum(call.server, project, call.query.get("name", "upload"), part)
    return {"id": datum["id"], "url": f"datum://{datum['id']}", "sha256": datum["sha256"]}


def _lose(call: Call, identity: str) -> dict[str, Any]:
    """Let the machine of a running execution vanish, as a spot machine does: nothing is uploaded."""
    folder = call.server.execution_folder(identity)
    try:
        numbers = [int((folder / name).read_text()) for name in ("supervisor", "process")]
    except (OSError, ValueError):
        raise ApiError(400, {"detail": "It does not run."}) from None
    if not (folder / "exit.json").exists():
        with contextlib.suppress(ProcessLookupError):
            os.kill(numbers[0], 9)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(numbers[1], 9)
    return {"ok": True}
