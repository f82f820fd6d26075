"""Bringing an execution's inputs to its folder."""

import fnmatch
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import httpx
from valohai_yaml.objs.input import Input, KeepDirectories

from tests.valohai_server.data import checksums
from tests.valohai_server.server import Server

# The account and key that every Azurite knows (published in its documentation).
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


class InputError(Exception):
    """An input that cannot be had; the text is for the log."""


@dataclass(frozen=True)
class Source:
    """One file to bring: its name in the store (may hold folders), its URL and how to fetch it."""

    name: str
    suffix: str
    uri: str
    datum: str | None = None
    container: Any = None


def bring(server: Server, inputs: list[dict[str, Any]], definitions: dict[str, Input], target: Path) -> dict[str, Any]:
    """Download all inputs to ``target/NAME/`` and return the content of inputs.json.

    Raises:
        InputError: with the URL that failed.
    """
    described = {}
    for one in inputs:
        folder = target / one["name"]
        folder.mkdir(parents=True, exist_ok=True)
        definition = definitions[one["name"]]
        found = [source for url in one["urls"] for source in sources(server, url)]
        files = [_bring_one(server, source, definition, folder, len(found)) for source in found]
        described[one["name"]] = {"input_id": None, "files": files}
    return described


def _bring_one(server: Server, source: Source, definition: Input, folder: Path, together: int) -> dict[str, Any]:
    name = _local_name(source, definition, together)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        fetch(server, source, path)
    except InputError:
        raise
    except Exception as error:  # whatever a client of a store may raise becomes a line of the log
        raise InputError(
            f"input {definition.name}: cannot get {source.uri}: {type(error).__name__}: {error}"
        ) from error
    datum = server.store.get("datum", source.datum) if source.datum else None
    return {
        "name": name,
        "path": f"/valohai/inputs/{definition.name}/{name}",
        "size": path.stat().st_size,
        "uri": source.uri,
        "storage_uri": source.uri,
        "datum_id": source.datum,
        "input_id": None,
        "download_intent": "always",
        "checksums": checksums(path),
        "metadata": [datum["metadata"]] if datum and datum["metadata"] else [],
    }


def _local_name(source: Source, definition: Input, together: int) -> str:
    if definition.filename and together == 1:
        return definition.filename
    kept = {KeepDirectories.FULL: source.name, KeepDirectories.SUFFIX: source.suffix}
    name = kept.get(definition.keep_directories, source.name.rpartition("/")[2])
    return "/".join(part for part in name.split("/") if part not in ("", ".", ".."))


def sources(server: Server, url: str) -> list[Source]:
    """The files behind a URL.

    Raises:
        InputError: when there is none.
    """
    scheme, _, rest = url.partition("://")
    if scheme == "datum":
        datum = server.store.get("datum", rest)
        if datum is None or datum["purged"]:
            raise InputError(f"{url}: the datum is gone")
        return [Source(datum["name"], datum["name"], url, datum=datum["id"])]
    if scheme == "azure":
        return list(_azure_sources(server, url, rest))
    path = unquote(urlsplit(url).path).lstrip("/")
    return [Source(path or "index.html", path.rpartition("/")[2], url)]


def _azure_sources(server: Server, url: str, rest: str) -> Iterator[Source]:
    account, _, rest = rest.partition("/")
    container_name, _, pattern = rest.partition("/")
    container = azure_container(server, account, container_name)
    if "*" not in pattern:
        yield Source(pattern, pattern.rpartition("/")[2], url, container=container)
        return
    prefix = pattern[: pattern.index("*")]
    root = prefix.rpartition("/")[0]
    found = False
    for blob in container.list_blobs(name_starts_with=prefix):
        if fnmatch.fnmatchcase(blob.name, pattern) and ("**" in pattern or blob.name.count("/") == pattern.count("/")):
            found = True
            suffix = blob.name[len(root) :].lstrip("/")
            yield Source(blob.name, suffix, f"azure://{account}/{container_name}/{blob.name}", container=container)
    if not found:
        raise InputError(f"{url}: nothing matches")


def azure_container(server: Server, account: str, container: str) -> Any:
    """A client of a container of a known account.

    Raises:
        InputError: for an account that the server was not told of.
    """
    from azure.storage.blob import BlobServiceClient

    address = server.settings.azure.get(account)
    if address is None:
        raise InputError(f"azure://{account}: unknown account (start the server with --azure={account}=URL)")
    if address.startswith("http"):
        key = {"account_name": urlsplit(address).path.strip("/") or account, "account_key": AZURITE_KEY}
        service = BlobServiceClient(address, credential=key)
    else:
        service = BlobServiceClient.from_connection_string(address)
    return service.get_container_client(container)


def fetch(server: Server, source: Source, path: Path) -> None:
    """Bring one file to ``path``."""
    part = path.with_name(path.name + ".part")
    if source.datum:
        shutil.copyfile(server.blob(source.datum), part)
    elif source.container is not None:
        with part.open("wb") as file:
            source.container.download_blob(source.name).readinto(file)
    else:
        with httpx.stream("GET", source.uri, follow_redirects=True, timeout=60) as answer, part.open("wb") as file:
            if answer.status_code != 200:
                raise InputError(f"{source.uri}: {answer.status_code} {answer.reason_phrase}")
            for chunk in answer.iter_bytes():
                file.write(chunk)
    part.replace(path)
