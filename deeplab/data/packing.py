"""Archives: ``.tar`` and ``.tar.gz`` files with the same bytes wherever they are made, and their safe unpacking.

Shards hold JPEGs and PNGs, checkpoints hold noise: deflate finds nothing in either and takes half a minute a gigabyte
to do so. The gzip layer therefore *stores* its content. It frames the blocks itself because the blocks that zlib makes
at level 0 differ between zlib, zlib-ng and the versions of Python, and with them the archive's digest.
"""

import gzip
import itertools
import struct
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import IO, BinaryIO, cast

from deeplab.errors import DataError

# The longest block that deflate can store, and how much is copied at a time, in bytes.
_BLOCK, _COPY = 0xFFFF, 1 << 20
# Magic, deflate, no flags (so no name), time 0, no extra flags, unknown operating system.
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# What the archives that a stage takes as input are called.
ARCHIVE_SUFFIXES = (".tar", ".tar.gz", ".tgz")


def pack(paths: Iterable[Path], target: Path) -> None:
    """Write files, under their base names, as an archive whose bytes depend on names and contents only.

    Args:
        paths: the files; packed in the order of their names.
        target: the archive, a tar in a gzip layer unless it is called ``.tar``; it appears when it is whole.

    Raises:
        DataError: if two files have the same name.
    """
    ordered = sorted(paths, key=lambda path: path.name)
    for one, other in itertools.pairwise(ordered):
        if one.name == other.name:
            raise DataError(f"{one} and {other} have the same name; an archive can hold only one of them")
    temporary = target.with_name(f".tmp-{target.name}")
    try:
        with temporary.open("wb") as file:
            if target.suffix == ".tar":
                _write(file, ordered)
            else:
                stream = _StoredGzip(file)
                _write(cast("IO[bytes]", stream), ordered)
                stream.close()
        temporary.replace(target)
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


class _StoredGzip:
    """A gzip stream of stored blocks, full ones and a shorter last one; what tarfile needs of a file to write to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._pending = file, b""
        self._crc = self._size = 0
        file.write(_GZIP_HEADER)

    def tell(self) -> int:
        return self._size

    def write(self, data: bytes) -> int:
        self._crc, self._size = zlib.crc32(data, self._crc), self._size + len(data)
        content = memoryview(self._pending + data)
        position = 0
        while len(content) - position > _BLOCK:
            self._block(content[position : position + _BLOCK], last=False)
            position += _BLOCK
        self._pending = bytes(content[position:])
        return len(data)

    def close(self) -> None:
        self._block(memoryview(self._pending), last=True)
        self._file.write(struct.pack("<II", self._crc, self._size & 0xFFFFFFFF))

    def _block(self, content: memoryview, *, last: bool) -> None:
        self._file.write(struct.pack("<BHH", last, len(content), len(content) ^ 0xFFFF))
        self._file.write(content)
