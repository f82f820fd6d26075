"""Datums, their bytes and aliases."""

import hashlib
import hmac
import re
import time
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, JSONResponse, Response

from tests.valohai_server.answers import Call, invalid, not_found, ordered, page, wanted
from tests.valohai_server.routing import route
from tests.valohai_server.server import Server
from tests.valohai_server.store import Record, now

LINK_LIFE = 3600
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def checksums(path: Path) -> dict[str, str]:
    """md5, sha1 and sha256 of a file."""
    sums = {name: hashlib.new(name) for name in ("md5", "sha1", "sha256")}
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            for one in sums.values():
                one.update(chunk)
    return {name: one.hexdigest() for name, one in sums.items()}


def add_datum(server: Server, project: str, name: str, path: Path, **more: Any) -> Record:
    """Take a file as a datum: it is moved into the store. ``more`` may hold output_execution and metadata."""
    facts = path.stat()
    known = server.store.find("datum", output_execution=more.get("output_execution"), name=name, inode=facts.st_ino)
    half_taken = [one for one in known if not one["purged"] and not server.blob(one["id"]).exists()]
    if more.get("output_execution") and half_taken:
        record = half_taken[0]  # the server died between the two steps
    else:
        fields = {"project": project, "name": name, "size": facts.st_size, "file_ctime": now(), "file_mtime": now()}
        fields |= {
            **checksums(path),
            "inode": facts.st_ino,
            "purged": False,
            "tags": [],
            "metadata": {},
            "deleted": False,
        }
        record = server.store.add("datum", {"output_execution": None, **fields, **more})
    path.replace(server.blob(record["id"]))
    return record


def set_metadata(server: Server, datum: Record, metadata: dict[str, Any]) -> None:
    """Give a datum what its side-car says: tags and aliases take effect."""
    merged = {**datum["metadata"], **metadata}
    tags = list(dict.fromkeys([*datum["tags"], *metadata.get("valohai.tags", [])]))
    server.store.update("datum", datum["id"], metadata=merged, tags=tags)
    aliases = metadata.get("valohai.alias") or []
    for name in [aliases] if isinstance(aliases, str) else aliases:
        with server.store.lock:
            known = server.store.find("alias", project=datum["project"], name=name)
            if known:
                server.store.update("alias", known[0]["id"], datum=datum["id"], mtime=now())
            else:
                server.store.add(
                    "alias", {"project": datum["project"], "name": name, "datum": datum["id"], "mtime": now()}
                )


def resolve_url(server: Server, project: str, url: str) -> str:
    """An input's URL with an alias replaced by its datum.

    Raises:
        ApiError: 400 for an unknown scheme, datum or alias.
    """
    scheme, separator, rest = str(url).partition("://")
    if not separator or scheme not in ("http", "https", "datum", "azure"):
        raise invalid("inputs", f"{url}: no such kind of URL (known: http, https, datum, azure)")
    if scheme != "datum":
        return str(url)
    if not _UUID.fullmatch(rest):
        found = server.store.find("alias", project=project, name=rest)
        rest = found[0]["datum"] if found else ""
    datum = server.store.get("datum", rest)
    if datum is None or datum["project"] != project:
        raise invalid("inputs", f"{url}: no such datum", "does_not_exist")
    if datum["purged"]:
        raise invalid("inputs", f"{url}: the datum is purged", "purged")
    return f"datum://{datum['id']}"


def answer(call: Call, datum: Record) -> dict[str, Any]:
    server = call.server
    execution = server.store.get("execution", datum["output_execution"]) if datum["output_execution"] else None
    shown = {name: value for name, value in datum.items() if name not in ("inode", "deleted")}
    shown |= {
        "uri": f"local://{datum['project']}/data/{datum['id']}/{datum['name']}",
        "store": server.store.find("store")[0]["id"],
        "aliases": [{"name": one["name"]} for one in server.store.find("alias", datum=datum["id"])],
        "output_execution": {"id": execution["id"], "counter": execution["counter"]} if execution else None,
    }
    if "download_url" in call.names("include"):
        shown["download_url"] = link(call, datum)
    return shown


def _signature(server: Server, identity: str, expires: str) -> str:
    return hmac.new(server.user["token"].encode(), f"{identity}{expires}".encode(), "sha256").hexdigest()


def link(call: Call, datum: Record) -> str:
    """Where the bytes are for an hour, without a token."""
    expires = str(int(time.time()) + LINK_LIFE)
    name = datum["name"].rpartition("/")[2]
    signature = _signature(call.server, datum["id"], expires)
    return f"{call.host}/blobs/{datum['id']}/{name}?expires={expires}&signature={signature}"


def serve_blob(call: Call, identity: str) -> Response:
    expires, signature = call.query.get("expires", "0"), call.query.get("signature", "")
    genuine = hmac.compare_digest(_signature(call.server, identity, expires), signature)
    if not genuine or int(expires) < time.time():
        return JSONResponse({"detail": "The link has expired."}, 403)
    if not call.server.blob(identity).exists():
        return JSONResponse({"detail": "Not found."}, 404)
    return FileResponse(call.server.blob(identity), media_type="application/octet-stream")


def _get(call: Call, identity: str) -> Record:
    datum = call.server.store.get("datum", identity)
    if datum is None or datum["deleted"]:
        raise not_found()
    return datum


@route("GET", "/data/")
def listing(call: Call) -> dict[str, Any]:
    rows = wanted(call, call.server.store.find("datum"), "project", "output_execution", "name")
    return page(call, ordered(call, rows, "ctime"), lambda row: answer(call, row))


@route("GET", "/executions/{identity}/outputs/")
def outputs(call: Call, identity: str) -> list[dict[str, Any]]:
    return [answer(call, row) for row in call.server.store.find("datum", output_execution=identity)]


@route("GET", "/data/{identity}/")
def read(call: Call, identity: str) -> dict[str, Any]:
    return answer(call, _get(call, identity))


@route("GET", "/data/{identity}/download/")
def download(call: Call, identity: str) -> dict[str, Any]:
    datum = _get(call, identity)
    if datum["purged"]:
        raise not_found()
    return {"url": link(call, datum)}


@route("POST", "/data/{identity}/purge/")
def purge(call: Call, identity: str) -> dict[str, Any]:
    datum = _get(call, identity)
    call.server.blob(datum["id"]).unlink(missing_ok=True)
    call.server.store.update("datum", datum["id"], purged=True)
    return {"ok": True}


@route("DELETE", "/data/{identity}/")
def delete(call: Call, identity: str) -> None:
    datum = _get(call, identity)
    call.server.blob(datum["id"]).unlink(missing_ok=True)
    call.server.store.update("datum", datum["id"], purged=True, deleted=True)


def _alias_answer(call: Call, alias: Record) -> dict[str, Any]:
    datum = call.server.store.get("datum", alias["datum"])
    return {**alias, "project": {"id": alias["project"]}, "datum": answer(call, datum) if datum else None}


@route("GET", "/datum-aliases/")
def aliases(call: Call) -> dict[str, Any]:
    rows = wanted(call, call.server.store.find("alias"), "project", "name")
    return page(call, ordered(call, rows, "-ctime"), lambda row: _alias_answer(call, row))


@route("GET", "/datum-aliases/resolve/")
def resolve_alias(call: Call) -> dict[str, Any]:
    found = call.server.store.find("alias", project=call.query.get("project"), name=call.query.get("name"))
    if not found:
        raise not_found()
    return {"datum": _alias_answer(call, found[0])["datum"]}
