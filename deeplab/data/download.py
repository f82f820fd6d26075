"""Bring the content of an address here, going on where an interrupted download stopped.

An address is a path, ``file://``, ``http(s)://`` or any URL that fsspec has a driver for (``az://`` through adlfs).

What has arrived lies in a *partial* file, with ``FILE.json`` beside it that says what it is part of. The next download
goes on there only if the source still is that very content (URL, size, ETag or time of change); else it starts over.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial as bound
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import aiohttp
import fsspec

from deeplab.errors import DeepLabError, FetchError
from deeplab.stage import Progress
from deeplab.stage.manifest import sha256_of

_BLOCK = 8 << 20
# Seconds. aiohttp by default ends a transfer after five minutes in all, which is too short for a large archive.
_HTTP_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
# What drivers call the mark that changes with the content.
_VERSION_KEYS = ("ETag", "etag", "Last-Modified", "last_modified", "LastModified", "mtime", "created")


@dataclass(frozen=True)
class Origin:
    """A file to bring here.

    Attributes:
        shown: the source without credentials, for messages.
        name: the name the file keeps.
        size: its length in bytes, or None if the server does not tell.
        identity: what tells this content from another under the same address.
        open: opens it for reading from an offset; returns the file and the offset at which it really starts, which
            is 0 where the source cannot start in the middle.
    """

    shown: str
    name: str
    size: int | None
    identity: Mapping[str, str]
    open: Callable[[int], tuple[Any, int]]

    @property
    def resumable(self) -> bool:
        """Whether a later download can know that it goes on with the same content."""
        return self.size is not None and any(key in self.identity for key in _VERSION_KEYS)


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


def download(origin: Origin, partial: Path) -> str:
    """Bring the whole content to ``partial``, for the caller to check, rename and ``discard``.

    After an interruption the partial file stays where a later call can go on with it, and goes where it cannot.

    Returns:
        The content's SHA-256, hexadecimal.

    Raises:
        FetchError: if the source cannot be read, or its length is not what was promised.
    """
    kept = _kept(origin, partial)
    if not kept:
        discard(partial)
        _note(partial).write_text(json.dumps(dict(origin.identity), indent=1) + "\n", encoding="utf-8")
    try:
        if not kept or kept != origin.size:
            _transfer(origin, partial, kept)
    except BaseException as error:
        kept = _kept(origin, partial)
        if not kept:
            discard(partial)
        elif isinstance(error, FetchError):
            hint = f"{kept} of {origin.size} bytes are here, and the same command goes on from there"
            raise FetchError(f"{error}; {hint}") from None
        raise
    return sha256_of(partial)


def discard(partial: Path) -> None:
    """Remove a partial file, if it is still there, and the note beside it."""
    partial.unlink(missing_ok=True)
    _note(partial).unlink(missing_ok=True)


def _note(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _kept(origin: Origin, partial: Path) -> int:
    """Bytes of this very content that are here already."""
    try:
        noted = json.loads(_note(partial).read_text(encoding="utf-8"))
        size = partial.stat().st_size
    except (FileNotFoundError, ValueError):
        return 0
    same = origin.resumable and noted == dict(origin.identity)
    return size if same and origin.size is not None and size <= origin.size else 0


def _transfer(origin: Origin, partial: Path, kept: int) -> None:
    with _explained(origin.shown):
        file, start = origin.open(kept)
    progress = Progress(origin.size, "bytes", start) if origin.size else None
    try:
        with file, partial.open("ab" if start else "wb") as target:
            for block in _blocks(file, origin.shown):
                target.write(block)
                if progress is not None:
                    progress.advance(len(block))
    finally:
        if progress is not None:
            progress.close()
    found = partial.stat().st_size
    if origin.size is not None and found != origin.size:
        raise FetchError(f"{origin.shown}: got {found} of {origin.size} bytes; run the same command again")


def _blocks(file: Any, shown: str) -> Iterator[bytes]:
    with _explained(shown):
        while block := file.read(_BLOCK):
            yield block


def _local(path: Path, source: str) -> Origin:
    if path.is_dir():
        raise FetchError(f"{source}: is a folder; name a file")
    try:
        path = path.resolve(strict=True)
        stat = path.stat()
    except FileNotFoundError:
        raise FetchError(f"{source}: no such file; give the path or URL of one") from None
    identity = {"path": str(path), "size": str(stat.st_size), "mtime": str(stat.st_mtime_ns)}
    name, opener = _safe_name(path.name, source), bound(path.open, "rb")
    return Origin(source, name, stat.st_size, identity, bound(_open_at, opener))


def _remote(source: str, protocol: str) -> Origin:
    shown = without_secrets(source)
    name = _safe_name(unquote(urlsplit(source).path.rpartition("/")[2]), shown)
    http = protocol in ("http", "https")
    with _explained(shown):
        options = {"client_kwargs": {"timeout": _HTTP_TIMEOUT}} if http else {}
        system, path = fsspec.core.url_to_fs(source, **options)
        info = system.info(path)
    if info.get("type") == "directory":
        raise FetchError(f"{shown}: is a folder; name a file")
    size = None if info.get("size") is None else int(info["size"])
    version = {key: str(info[key]) for key in _VERSION_KEYS if info.get(key)}
    identity = {"url": shown, "size": str(size), **version}
    if http:
        return Origin(shown, name, size, identity, bound(_open_http, system, path, info))
    opener = bound(system.open, path, "rb", block_size=_BLOCK)
    return Origin(shown, name, size, identity, bound(_open_at, opener))


def _open_at(opener: Callable[[], Any], offset: int) -> tuple[Any, int]:
    file = opener()
    if offset and not file.seekable():
        return file, 0
    file.seek(offset)
    return file, offset


def _open_http(system: Any, url: str, info: Mapping[str, Any], offset: int) -> tuple[Any, int]:
    """One stream to the end (block size 0): separate ranges could be of different versions."""
    # A range counts bytes as they travel: they must not be compressed on the way.
    headers = {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        # A weak ETag (W/"...") may stand for other bytes of the same meaning.
        etag = str(info.get("ETag") or "W/")
        unchanged = info.get("Last-Modified") if etag.startswith("W/") else etag
        if unchanged:
            headers["If-Range"] = str(unchanged)
    file = system.open(url, "rb", block_size=0, size=info.get("size"), headers=headers)
    # 206: the rest, as asked; 200: the server cannot do ranges, or has another version by now, and sends it all.
    return file, offset if file.r.status == 206 else 0


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turn what a driver raises into a FetchError that shows no credentials."""
    try:
        yield
    except DeepLabError:  # such as a request to stop
        raise
    except FileNotFoundError as error:
        raise FetchError(_missing(shown, error.__cause__)) from None
    except PermissionError:
        raise FetchError(f"{shown}: access denied; give the driver credentials through its environment") from None
    except ImportError as error:
        raise FetchError(f"{shown}: {error}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise FetchError(f"{shown}: {without_secrets(str(error))}") from None
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
    reason = without_secrets(str(error)) or type(error).__name__
    return f"{shown}: cannot be read ({reason}); check address, network and credentials"


def without_secrets(text: str) -> str:
    """Drop query strings (signatures), and names and passwords in front of hosts."""
    return re.sub(r"\?[^\s'\")]+", "", re.sub(r"(://)[^/@\s]*:[^/@\s]*@", r"\1", text)).strip()


def _safe_name(name: str, shown: str) -> str:
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name) or name == "manifest.json":
        raise FetchError(
            f"{shown}: its last part, {name!r}, cannot name the file; give an address that ends in a file name"
        )
    return name
