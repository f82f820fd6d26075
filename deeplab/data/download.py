"""Bring the content of an address here, going on where an interrupted download stopped.

An address is a path, ``file://``, ``http(s)://``, one of Azure's blob storage (``azure://``, ``az://``, ``abfs://``) or
any URL that fsspec has a driver for.

What has arrived lies in a *partial* file, with a ledger in ``FILE.json`` beside it. The next download goes on there
only if the source still is that very content (address, size, ETag or time of change); else it starts over.
"""

import base64
import binascii
import hashlib
import re
import shutil
from dataclasses import replace
from functools import partial as bound
from pathlib import Path
from typing import BinaryIO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from deeplab.data.azure import Address, driver_options, find_account, parse
from deeplab.data.blob import Blob
from deeplab.data.drivers import find_local, find_with_driver
from deeplab.data.ledger import Ledger, kept, note_of
from deeplab.data.origin import Busy, Interrupted, Origin, Replaced, safe_name, without_secrets
from deeplab.data.transfer import BLOCK, Transfer, retrying
from deeplab.data.web import Found, Refused, WebFile
from deeplab.errors import FetchError

__all__ = ["Origin", "discard", "download", "find_origin", "without_secrets"]

_STREAMS, _RANGE = 4, 16 << 20
# Tries to read something through that cannot be opened in its middle.
_ATTEMPTS = 6


def find_origin(source: str, azure_endpoint: str | None = None) -> Origin:
    """Look a source up: its name, size and identity.

    Args:
        source: the address.
        azure_endpoint: URL of the blob service that stands for every storage account.

    Raises:
        FetchError: if there is no such file, it may not be read, or there is no driver for its protocol.
        ConfigError: if it is a blob and its account is not known.
    """
    protocol = re.match(r"([A-Za-z][A-Za-z0-9+.-]+)://|$", source)
    if protocol is None:
        return find_local(Path(source).expanduser(), source)
    if protocol[1] == "file":
        return find_local(Path(url2pathname(urlsplit(source).path)), source)
    address = parse(source, azure_endpoint)
    if address is not None:
        return _find_blob(source, address, azure_endpoint)
    if (protocol[1] or "").lower() in ("http", "https"):
        shown = without_secrets(source)
        name = safe_name(unquote(urlsplit(source).path.rpartition("/")[2]), shown)
        file = WebFile(lambda: (source, {}), shown)
        origin = _on_the_web(file, _patiently(file), shown, name)
        return origin if origin.resumable else _told_by_query(origin, urlsplit(source).query)
    return find_with_driver(source, {})


def _told_by_query(origin: Origin, query: str) -> Origin:
    """Where nothing tells one version from another, ``?id=1`` and ``?id=2`` must; the query itself may be secret."""
    if not query:
        return origin
    return replace(origin, identity={**origin.identity, "query": hashlib.sha256(query.encode()).hexdigest()})


def _find_blob(source: str, address: Address, endpoint: str | None) -> Origin:
    account = find_account(address, endpoint)
    if account.principal:
        return find_with_driver(f"az://{address.path}", driver_options(account))
    blob = Blob(account, address.path, address.query)
    name = safe_name(address.path.rpartition("/")[2], blob.url)
    file = WebFile(blob.request, blob.url)
    try:
        found = _patiently(file)
    except Refused as refused:
        blob = blob.after(refused)
        file = WebFile(blob.request, blob.url)
        try:
            found = _patiently(file)
        except Refused as again:
            blob.after(again)
            raise
    return _on_the_web(file, found, blob.url, name)


def _patiently(file: WebFile) -> Found:
    """Look a file up, waiting for a server that is busy; one that is not there is an error at once."""
    found: Found = retrying(Busy)(file.look_up)
    return found


def _on_the_web(file: WebFile, found: Found, shown: str, name: str) -> Origin:
    resumable = bool(found.size is not None and found.ranges and found.condition)
    try:
        md5 = base64.b64decode(found.md5, validate=True).hex() or None
    except binascii.Error:
        md5 = None
    return Origin(
        shown=shown,
        name=name,
        size=found.size,
        identity={"url": shown, "size": str(found.size), **found.version},
        open=bound(file.open, found),
        resumable=resumable,
        streams=_STREAMS,
        md5=md5,
    )


def download(origin: Origin, partial: Path) -> str:
    """Bring the whole content to ``partial``, for the caller to check, rename and ``discard``.

    After an interruption the partial file stays where a later call can go on with it, and goes where it cannot. Only
    one process at a time may do this with a partial file: callers hold the lock of its folder.

    Returns:
        The content's SHA-256, hexadecimal.

    Raises:
        FetchError: if the source cannot be read, changed meanwhile, or its content is not what was promised.
    """
    here = kept(origin, partial)
    if not here:
        discard(partial)
    _check_space(origin, partial, here)
    try:
        with partial.open("r+b" if here else "w+b", buffering=0) as file:
            found = _resumably(origin, partial, file) if origin.resumable else _at_once(origin, file)
            if origin.look_again is not None and origin.look_again() != origin.identity:
                raise Replaced(origin.shown)
            _check_md5(origin, found)
    except BaseException as error:
        here = kept(origin, partial)
        if not here or isinstance(error, Replaced | _Damaged):
            discard(partial)
        elif isinstance(error, FetchError):
            hint = f"{here} of {origin.size} bytes are here, and the same command goes on from there"
            raise FetchError(f"{error}; {hint}") from None
        raise
    return found[0]


def discard(partial: Path) -> None:
    """Remove a partial file, if it is still there, and the note beside it."""
    note_of(partial).unlink(missing_ok=True)
    partial.unlink(missing_ok=True)


class _Damaged(FetchError):
    """Content that is whole, but not what the source says."""


def _resumably(origin: Origin, partial: Path, file: BinaryIO) -> list[str]:
    assert origin.size is not None
    file.truncate(origin.size)
    ledger = Ledger(origin, partial, _RANGE if origin.streams > 1 else max(origin.size, 1))
    try:
        found = Transfer(origin, file, ledger).run()
    except BaseException:
        ledger.settle(file.fileno())
        raise
    finally:
        ledger.write()
    return found


def _at_once(origin: Origin, file: BinaryIO) -> list[str]:
    """Read a source to its end that cannot be opened in its middle; what breaks off begins anew."""
    hashes: list[str] = retrying(Interrupted, attempts=_ATTEMPTS)(_read_through, origin, file)
    found = file.tell()
    if origin.size is not None and found != origin.size:
        raise FetchError(f"{origin.shown}: got {found} of {origin.size} bytes; run the same command again")
    return hashes


def _read_through(origin: Origin, file: BinaryIO) -> list[str]:
    file.seek(0)
    file.truncate()
    hashes = [hashlib.sha256(), hashlib.md5(usedforsecurity=False)]
    reader = origin.open(0, None)
    try:
        while block := reader.read(BLOCK):
            rest = memoryview(block)
            while rest:
                rest = rest[file.write(rest) or 0 :]
            for running in hashes:
                running.update(block)
    finally:
        reader.close()
    return [running.hexdigest() for running in hashes]


def _check_space(origin: Origin, partial: Path, here: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    needed = (origin.size or 0) - here
    if needed > free:
        raise FetchError(
            f"{partial.parent}: {origin.shown} needs {needed} bytes more and {free} are free; "
            "make room or choose another --output_dir"
        )


def _check_md5(origin: Origin, found: list[str]) -> None:
    if origin.md5 is not None and found[1] != origin.md5:
        raise _Damaged(
            f"{origin.shown}: its MD5 is {found[1]}, but the server says {origin.md5}; the stored file is damaged: "
            "upload it again"
        )
