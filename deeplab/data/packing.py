"""Archives: ``.tar`` and ``.tar.gz`` files with the same bytes wherever they are made, and their safe unpacking.

Shards hold JPEGs and PNGs, checkpoints hold noise: deflate finds nothing in either and takes half a minute a gigabyte
to do so. The gzip layer therefore *stores* its content. It frames the blocks itself because the blocks that zlib makes
at level 0 differ between zlib, zlib-ng and the versions of Python, and with them the archive's digest.
"""

import gzip
import hashlib
import itertools
import struct
import tarfile
import zlib
from collections.abc import Iterable
from io import RawIOBase
from pathlib import Path
from typing import IO, cast

import deflate

from deeplab.errors import DataError

# The longest block that deflate can store, and how much is copied at a time, in bytes.
_BLOCK, _COPY = 0xFFFF, 1 << 20
# Magic, deflate, no flags (so no name), time 0, no extra flags, unknown operating system.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# A stored block's header: whether it is the last, its length, and that inverted.
_HEADER = struct.Struct("<BHH")
_STRIDE, _BLOCKS = _HEADER.size + _BLOCK, 16
# What the archives that a stage takes as input are called.
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def pack(paths: Iterable[Path], target: Path, *, first: Path | None = None) -> str:
    """Write files, under their base names, as an archive whose bytes depend on names and contents only.

    Args:
        paths: the files; packed in the order of their names.
        target: the archive, a tar in a gzip layer unless it is called ``.tar``; it appears when it is whole.
        first: a file that comes before all others, for readers who want only that.

    Returns:
        The archive's SHA-256, hexadecimal.

    Raises:
        DataError: if two files have the same name.
    """
    ordered = sorted([*paths, *([first] if first else [])], key=lambda path: path.name)
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise DataError(f"{one} and {other} have the same name; an archive can hold only one of them")
    ordered.sort(key=lambda path: path != first)
    temporary = target.with_name(f".tmp-{target.name}")
    try:
        with temporary.open("wb", buffering=0) as file:
            stream: _Written = _Written(file) if target.suffix == ".tar" else _StoredGzip(file)
            _write(cast("IO[bytes]", stream), ordered)
            stream.close()
        temporary.replace(target)
        return stream.sha256
    finally:
        temporary.unlink(missing_ok=True)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a .tar or .tar.gz; nothing is written outside ``folder``, and links and owners are not trusted.

    Raises:
        DataError: if the archive is damaged, cut short, no archive, or names a place outside ``folder``.
    """
    try:
        with archive.open("rb") as file:
            zipped = file.read(2) == _GZIP_HEADER[:2]
            file.seek(0)
            if zipped:
                with gzip.GzipFile(fileobj=file) as stream:
                    _extract(stream, folder)
            else:
                _extract(file, folder)
    except tarfile.FilterError as error:
        raise DataError(f"{archive}: unsafe, so it is not unpacked ({error}); get it from another source") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{archive}: damaged, cut short or no tar archive ({error}); make or fetch it again") from None


def _extract(stream: IO[bytes] | gzip.GzipFile, folder: Path) -> None:
    with tarfile.open(fileobj=stream, mode="r|", bufsize=_COPY) as archive:
        archive.extractall(folder, filter="data")
    # tar stops at its end mark; the gzip checksum behind it is only compared when the stream is read to its end.
    while stream.read(_COPY):
        pass


def _write(stream: IO[bytes], paths: Iterable[Path]) -> None:
    with tarfile.TarFile(fileobj=stream, mode="w", copybufsize=_COPY) as archive:
        for path in paths:
            _add(archive, path)


def _add(archive: tarfile.TarFile, path: Path) -> None:
    entry = tarfile.TarInfo(path.name)
    entry.size, entry.mode = path.stat().st_size, 0o644
    with path.open("rb") as file:
        archive.addfile(entry, file)


class _Written:
    """A file that is written from its beginning to its end, and digested meanwhile: what tarfile needs."""

    def __init__(self, file: RawIOBase) -> None:
        self._file, self._digest, self._size = file, hashlib.sha256(), 0

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def tell(self) -> int:
        return self._size

    def write(self, data: bytes) -> int:
        self._size += len(data)
        self._put(data)
        return len(data)

    def close(self) -> None:
        """Nothing is pending."""

    def _put(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]


class _StoredGzip(_Written):
    """The same in a gzip layer of stored blocks, full ones and a shorter last one; they are laid out in one buffer."""

    def __init__(self, file: RawIOBase) -> None:
        super().__init__(file)
        self._buffer = memoryview(bytearray(_BLOCKS * _STRIDE))
        for start in range(0, len(self._buffer), _STRIDE):
            _HEADER.pack_into(self._buffer, start, 0, _BLOCK, _BLOCK ^ 0xFFFF)
        self._pending = self._crc = 0
        self._put(_GZIP_HEADER)

    def write(self, data: bytes) -> int:
        self._crc, self._size = deflate.crc32(data, self._crc), self._size + len(data)
        rest = memoryview(data)
        while rest:
            if self._pending == _BLOCKS * _BLOCK:
                self._put(self._buffer)
                self._pending = 0
            block, offset = divmod(self._pending, _BLOCK)
            count = min(len(rest), _BLOCK - offset)
            start = block * _STRIDE + _HEADER.size + offset
            self._buffer[start : start + count] = rest[:count]
            self._pending += count
            rest = rest[count:]
        return len(data)

    def close(self) -> None:
        full = max(0, self._pending - 1) // _BLOCK
        size, start = self._pending - full * _BLOCK, full * _STRIDE
        _HEADER.pack_into(self._buffer, start, 1, size, size ^ 0xFFFF)
        self._put(self._buffer[: start + _HEADER.size + size])
        self._put(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))
