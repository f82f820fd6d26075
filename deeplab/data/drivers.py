"""Files on this machine, and those that fsspec has a driver for."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial as bound
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from deeplab.data.origin import Origin, safe_name, without_secrets
from deeplab.errors import DeepLabError, FetchError

_BLOCK = 16 << 20
# What drivers call the mark that changes with the content.
_VERSION_KEYS = ("ETag", "etag", "Last-Modified", "last_modified", "LastModified", "mtime", "created")


def find_local(path: Path, source: str) -> Origin:
    """Look a file of this machine up.

    Raises:
        FetchError: if there is none.
    """
    if path.is_dir():
        raise FetchError(f"{source}: is a folder; name a file")
    try:
        path = path.resolve(strict=True)
    except FileNotFoundError:
        raise FetchError(f"{source}: no such file; give the path or URL of one") from None
    identify = bound(_local_identity, path)
    identity = identify()
    return Origin(
        shown=source,
        name=safe_name(path.name, source),
        size=int(identity["size"]),
        identity=identity,
        open=bound(_open_local, path),
        resumable=True,
        look_again=identify,
    )


def _local_identity(path: Path) -> dict[str, str]:
    stat = path.stat()
    return {"path": str(path), "size": str(stat.st_size), "mtime": str(stat.st_mtime_ns)}


def _open_local(path: Path, start: int, stop: int | None) -> Any:
    file = path.open("rb", buffering=0)
    file.seek(start)
    return file


def find_with_driver(source: str, options: Mapping[str, Any]) -> Origin:
    """Look a file up through fsspec.

    Args:
        source: any URL that it has a driver for.
        options: what the driver needs besides the URL.

    Raises:
        FetchError: if there is no such file, or no driver.
    """
    import fsspec  # a third of the start of a fetch that has no use for it

    shown = without_secrets(source)
    name = safe_name(unquote(urlsplit(source).path.rpartition("/")[2]), shown)
    with _explained(shown):
        system, path = fsspec.core.url_to_fs(source, **options)
    identity = _driver_identity(system, path, shown)
    size = None if identity["size"] == "None" else int(identity["size"])
    return Origin(
        shown=shown,
        name=name,
        size=size,
        identity=identity,
        open=bound(_open_with_driver, system, path, shown),
        resumable=size is not None and len(identity) > 2,
        look_again=bound(_driver_identity, system, path, shown),
    )


def _driver_identity(system: Any, path: str, shown: str) -> dict[str, str]:
    with _explained(shown):
        system.invalidate_cache()
        info = system.info(path)
    if info.get("type") == "directory":
        raise FetchError(f"{shown}: is a folder; name a file")
    version = {key: str(info[key]) for key in _VERSION_KEYS if info.get(key)}
    return {"url": shown, "size": str(info.get("size")), **version}


class _Driven:
    """A file that a driver has opened, whose failures are told without credentials."""

    def __init__(self, file: Any, shown: str) -> None:
        self._file, self._shown = file, shown

    def read(self, count: int, /) -> bytes:
        with _explained(self._shown):
            content: bytes = self._file.read(count)
        return content

    def close(self) -> None:
        self._file.close()


def _open_with_driver(system: Any, path: str, shown: str, start: int, stop: int | None) -> _Driven:
    with _explained(shown):
        file = system.open(path, "rb", block_size=_BLOCK)
        file.seek(start)
    return _Driven(file, shown)


@contextmanager
def _explained(shown: str) -> Iterator[None]:
    """Turn what a driver raises into a FetchError that shows no credentials."""
    try:
        yield
    except DeepLabError:
        raise
    except FileNotFoundError:
        raise FetchError(f"{shown}: no such file; check the address") from None
    except PermissionError:
        raise FetchError(f"{shown}: access denied; give the driver credentials through its environment") from None
    except ImportError as error:
        raise FetchError(f"{shown}: {error}") from None
    except ValueError as error:
        if "Protocol not known" not in str(error):
            raise FetchError(f"{shown}: {without_secrets(str(error))}") from None
        raise FetchError(
            f"{shown}: unknown protocol; give a path, file://, http://, https://, azure://ACCOUNT/CONTAINER/BLOB "
            "or another that fsspec has a driver for"
        ) from None
    except Exception as error:
        reason = re.sub(r"\s+", " ", without_secrets(str(error))) or type(error).__name__
        raise FetchError(f"{shown}: cannot be read ({reason}); check address, network and credentials") from None
