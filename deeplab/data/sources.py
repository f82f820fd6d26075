"""Where files come from: a zip archive, a tar archive, a folder, or the original's four folder flags."""

import os
import struct
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import deflate

from deeplab.config import ConvertConfig
from deeplab.data.packing import ARCHIVE_SUFFIXES, unpack
from deeplab.data.shards import lone_file
from deeplab.errors import DataError
from deeplab.stage.inputs import files_below

# A member's local header: signature, then its lengths of name and extra field at the end.
_LOCAL = struct.Struct("<4s22xHH")
# A local extra field may be longer than the directory's; so many bytes more are read at once.
_SLACK = 256
_ENCRYPTED = 0x1
# No deflate stream grows by more: its shortest code, two bits, stands for at most 258 bytes.
_DENSEST = 1032


@dataclass(frozen=True)
class Source:
    """An opened source of files.

    Attributes:
        shown: what messages call it.
        place: the archive or folder; None: several folders.
        names: the paths of its files.
        read: returns the bytes of a file; may be called from several threads.
        folder: what the names lie in, where they are files on the disk that stay.
    """

    shown: str
    place: Path | None
    names: tuple[str, ...]
    read: Callable[[str], bytes]
    folder: Path | None = None

    def describe(self, name: str) -> str:
        """What messages call a file."""
        return f"{self.shown}: {name}"


@contextmanager
def open_source(place: Path, *, besides: Path | None = None) -> Iterator[Source]:
    """Open an archive or a folder. A folder that holds nothing but one archive stands for that archive.

    Args:
        place: the archive or folder.
        besides: a folder that does not count when it lies there: the output's.

    Raises:
        DataError: if it is missing or damaged.
    """
    place = _lone_archive(place, besides)
    if place.is_dir():
        yield replace(_folder(place, place), folder=place)
    elif place.name.lower().endswith(ARCHIVE_SUFFIXES) and place.is_file():
        with tempfile.TemporaryDirectory(prefix="deeplab-source-") as folder:
            unpack(place, Path(folder))
            yield _folder(Path(folder), place)
    else:
        with _opened_zip(place) as archive, place.open("rb") as file:
            reader = _ZipReader(archive, file.fileno(), place)
            yield Source(str(place), place, reader.names, reader.read)


def open_four_folders(config: ConvertConfig) -> Source:
    """The four folders of the original's flags, as if they lay in ADE20K's layout.

    Raises:
        DataError: if one is missing.
    """
    flags = folder_flags(config)
    missing = [f"--{name}={value}" for name, value in flags.items() if not Path(value).is_dir()]
    if missing:
        raise DataError(
            f"no such folder: {', '.join(missing)}. Pass --source=ARCHIVE.zip (or a folder in the data set's layout), "
            "or all four folder flags"
        )
    layout = ("images/training", "annotations/training", "images/validation", "annotations/validation")
    paths = {
        f"{place}/{entry.name}": entry
        for place, folder in zip(layout, flags.values(), strict=True)
        for entry in Path(folder).iterdir()
        if entry.is_file()
    }
    return Source("the four folders", None, tuple(paths), lambda name: paths[name].read_bytes())


def folder_flags(config: ConvertConfig) -> dict[str, str]:
    """The four folder flags and their values."""
    names = ("train_image_folder", "train_image_label_folder", "val_image_folder", "val_image_label_folder")
    return {name: getattr(config, name) for name in names}


def _folder(place: Path, shown: Path) -> Source:
    names = tuple(file.relative_to(place).as_posix() for file in files_below(place))
    return Source(str(shown), shown, names, lambda name: (place / name).read_bytes())


def _lone_archive(place: Path, besides: Path | None) -> Path:
    """The one archive in a folder that holds nothing else (what fetch leaves), or the place itself."""
    if not place.is_dir():
        return place
    file = lone_file(place, besides)
    return file if file is not None and _is_archive(file) else place


def _is_archive(path: Path) -> bool:
    """Whether a file is an archive that can be read, whatever a download has called it."""
    return path.name.lower().endswith((".zip", *ARCHIVE_SUFFIXES)) or zipfile.is_zipfile(path)


@contextmanager
def _opened_zip(place: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(place)
    except FileNotFoundError:
        raise DataError(f"--source={place}: no such file or folder") from None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(
            f"{place}: not a zip archive, or cut short ({error}); fetch it again, or give .zip, .tar or .tar.gz"
        ) from None
    with archive:
        yield archive


class _Member(NamedTuple):
    """Where a member is and what it must come to; sizes in bytes."""

    header_offset: int
    header_size: int
    compress_size: int
    file_size: int
    crc: int
    stored: bool


class _ZipReader:
    """Reads members by their offset: several threads at once, and half as dear as zipfile's own streams.

    The library's own records of members, a kilobyte each, are given up but for those that it has to read itself.
    """

    def __init__(self, archive: zipfile.ZipFile, descriptor: int, place: Path) -> None:
        self._archive, self._descriptor, self._place = archive, descriptor, place
        members = [member for member in archive.infolist() if not member.is_dir()]
        self._members = {member.filename: _member(member) for member in members}
        archive.NameToInfo = {member.filename: member for member in members if self._members[member.filename] is None}
        archive.filelist.clear()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def read(self, name: str) -> bytes:
        member = self._members[name]
        try:
            if member is None:
                return self._read_by_library(name)
            content = self._inflated(member)
        except (zipfile.BadZipFile, deflate.DeflateError, EOFError, OSError, struct.error) as error:
            raise DataError(f"{self._place}: {name} is damaged ({error}); fetch the archive again") from None
        if len(content) != member.file_size or deflate.crc32(content) != member.crc:
            raise DataError(f"{self._place}: {name} is damaged (its checksum differs); fetch the archive again")
        return content

    def _read_by_library(self, name: str) -> bytes:
        if self._archive.getinfo(name).flag_bits & _ENCRYPTED:
            raise DataError(f"{self._place}: {name} is encrypted; unpack the archive and pass the folder")
        try:
            return self._archive.read(name)
        except (NotImplementedError, RuntimeError) as error:
            raise DataError(f"{self._place}: {name}: {error}; unpack the archive and pass the folder") from None

    def _inflated(self, member: _Member) -> bytes:
        raw = self._stored(member)
        if member.stored:
            return bytes(raw)
        if member.file_size > member.compress_size * _DENSEST:  # made to exhaust memory
            raise zipfile.BadZipFile("its content cannot be as long as the directory says")
        return bytes(deflate.deflate_decompress(raw, member.file_size))

    def _stored(self, member: _Member) -> memoryview:
        """A member as the archive stores it."""
        expected = member.header_size + member.compress_size
        block = os.pread(self._descriptor, expected + _SLACK, member.header_offset)
        signature, name_length, extra_length = _LOCAL.unpack_from(block)
        if signature != b"PK\x03\x04":
            raise zipfile.BadZipFile("its header is not where the directory says")
        start = _LOCAL.size + name_length + extra_length
        missing = start + member.compress_size - len(block)
        if missing > 0:
            block += os.pread(self._descriptor, missing, member.header_offset + len(block))
        return memoryview(block)[start : start + member.compress_size]


def _member(member: zipfile.ZipInfo) -> _Member | None:
    """What is needed to read a member; None for one that only the library can read."""
    if member.flag_bits & _ENCRYPTED or member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return None
    header_size = _LOCAL.size + len(member.filename.encode()) + len(member.extra)
    stored = member.compress_type == zipfile.ZIP_STORED
    return _Member(member.header_offset, header_size, member.compress_size, member.file_size, member.CRC, stored)
