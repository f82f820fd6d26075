"""Stage ``fetch``: bring one file here, whole or not at all.

A source is a path, ``file://``, ``http(s)://`` or any URL that fsspec has a driver for (``az://`` through adlfs).
"""

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, cast
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import aiohttp
import fsspec

from deeplab.config import FetchConfig, resolve
from deeplab.errors import FetchError
from deeplab.stage import OutputFolder, Progress
from deeplab.stage.manifest import combined_digest
from deeplab.stage.versions import CODE_VERSIONS

_BLOCK = 8 << 20
# Seconds. aiohttp by default ends a transfer after five minutes in all, which is too short for a large archive.
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
# What fsspec's drivers call the mark that changes with the content.
_VERSION_KEYS = ("ETag", "etag", "last_modified", "LastModified", "mtime", "created")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Origin:
    """A file to fetch.

    Attributes:
        shown: the source without credentials, for messages.
        name: the name the file keeps.
        size: its length in bytes, or None if the server does not tell.
        identity: what tells this content from another under the same address.
        open: opens it for reading.
    """

    shown: str
    name: str
    size: int | None
    identity: Mapping[str, str]
    open: Callable[[], Any]


def run(given: Mapping[str, Any]) -> None:
    """Fetch a file; ``given`` are flags of ``FetchConfig``.

    Raises:
        ConfigError: for a bad flag.
        FetchError: if the source cannot be read, or its content is not what was promised.
        OutputError: if the folder cannot be written or holds other work.
    """
    config = resolve(FetchConfig, given)
    origin = find_origin(config.source)
    inputs = {"source": combined_digest(origin.identity)}
    with OutputFolder(config.output_dir, "fetch", CODE_VERSIONS["fetch"], config, inputs) as folder:
        if folder.finished:
            _log.info("%s: %s is already here", folder.path, origin.name)
            return
        target = folder.path / origin.name
        temporary = target.with_name(f".tmp-{origin.name}")
        try:
            found = _download(origin, temporary)
            if config.sha256 is not None and found != config.sha256.lower():
                raise FetchError(
                    f"{origin.shown}: expected sha256 {config.sha256.lower()}, found {found}; "
                    "the file is another version or damaged: correct --sha256 or the source"
                )
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
        folder.finish([target])


def find_origin(source: str) -> Origin:
    """Look a source up: its name, size and identity.

    Raises:
        FetchError: if there is no such file, or no driver for its protocol.
    """
    protocol = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://|$", source)
    if protocol is None:
        return _local(Path(source).expanduser(), source)
    if protocol[1] == "file":
        return _local(Path(url2pathname(urlsplit(source).path)), source)
    return _remote(source, (protocol[1] or "").lower())


def _local(path: Path, source: str) -> Origin:
    if path.is_dir():
        raise FetchError(f"--source={source}: is a folder; name a file")
    try:
        path = path.resolve(strict=True)
        stat = path.stat()
    except FileNotFoundError:
        raise FetchError(f"--source={source}: no such file; give the path or URL of one") from None
    identity = {"path": str(path), "size": str(stat.st_size), "mtime": str(stat.st_mtime_ns)}
    return Origin(source, _safe_name(path.name, source), stat.st_size, identity, partial(path.open, "rb"))


def _remote(source: str, protocol: str) -> Origin:
    shown = _without_secrets(source)
    name = _safe_name(unquote(urlsplit(source).path.rpartition("/")[2]), shown)
    with _explained(shown):
        system, path = fsspec.core.url_to_fs(source, **_options(protocol))
        info = system.info(path)
    if info.get("type") == "directory":
        raise FetchError(f"{shown}: is a folder; name a file")
    size = None if info.get("size") is None else int(info["size"])
    version = {key: str(info[key]) for key in _VERSION_KEYS if info.get(key)}
    identity = {"url": shown, "size": str(size), **version}
    # An HTTP file is read as one stream (block size 0), since separate ranges could be of different versions.
    block_size = 0 if protocol in ("http", "https") else _BLOCK
    return Origin(shown, name, size, identity, partial(system.open, path, "rb", block_size=block_size))


def _options(protocol: str) -> dict[str, Any]:
    if protocol in ("http", "https"):
        return {"client_kwargs": {"timeout": _HTTP_TIMEOUT}}
    return {}


def _download(origin: Origin, temporary: Path) -> str:
    """Copy the content, see that all of it came, and return its SHA-256."""
    digest, done = hashlib.sha256(), 0
    progress = Progress(origin.size, "bytes") if origin.size else None
    try:
        with temporary.open("wb") as target:
            for block in _blocks(origin):
                target.write(block)
                digest.update(block)
                done += len(block)
                if progress is not None:
                    progress.advance(len(block))
    finally:
        if progress is not None:
            progress.close()
    if origin.size is not None and done != origin.size:
        raise FetchError(f"{origin.shown}: got {done} of {origin.size} bytes; run the same command again")
    return digest.hexdigest()


def _blocks(origin: Origin) -> Iterator[bytes]:
    with _explained(origin.shown), origin.open() as opened:
        file = cast("BinaryIO", opened)
        while block := file.read(_BLOCK):
            yield block


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turn what a driver raises into a FetchError that shows no credentials."""
    try:
        yield
    except FileNotFoundError as error:
        raise FetchError(_missing(shown, error.__cause__)) from None
    except PermissionError:
        raise FetchError(f"{shown}: access denied; give the driver credentials through its environment") from None
    except ImportError as error:
        raise FetchError(f"{shown}: {error}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise FetchError(f"{shown}: {_without_secrets(str(error))}") from None
        raise FetchError(
            f"{shown}: unknown protocol; give a path, file://, http://, https://, az://CONTAINER/BLOB "
            "or another that fsspec has a driver for"
        ) from None
    except Exception as error:
        raise FetchError(_unreadable(shown, error)) from None


def _missing(shown: str, cause: BaseException | None) -> str:
    """The HTTP driver calls a file missing whatever went wrong; the cause tells what did."""
    status = getattr(cause, "status", None) or getattr(cause, "status_code", None)
    if cause is None or isinstance(cause, FileNotFoundError) or status == 404:
        return f"{shown}: no such file; check the address"
    return _unreadable(shown, cause)


def _unreadable(shown: str, error: BaseException) -> str:
    reason = _without_secrets(str(error)) or type(error).__name__
    return f"{shown}: cannot be read ({reason}); check address, network and credentials"


def _without_secrets(text: str) -> str:
    """Drop query strings (signatures), and names and passwords in front of hosts."""
    return re.sub(r"\?[^\s'\")]+", "", re.sub(r"(://)[^/@\s]*:[^/@\s]*@", r"\1", text)).strip()


def _safe_name(name: str, shown: str) -> str:
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name) or name == "manifest.json":
        raise FetchError(
            f"{shown}: its last part, {name!r}, cannot name the file; give an address that ends in a file name"
        )
    return name
