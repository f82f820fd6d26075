"""Shards: how they are named, and how a data folder or an archive of one is opened."""

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deeplab.data.packing import ARCHIVE_SUFFIXES, unpack
from deeplab.errors import DataError

# The archive of shards that conversion writes beside them.
ARCHIVE_NAME = "tfrecords.tar.gz"

_SHARD = re.compile(r"(?P<split>.+)-(?P<index>\d{5})-of-(?P<count>\d{5})(\..*)?")


def shard_name(split: str, index: int, count: int) -> str:
    """The original's name of a shard, such as ``train-00000-of-00004.tfrecord``."""
    return f"{split}-{index:05d}-of-{count:05d}.tfrecord"


@contextmanager
def open_data_folder(path: str | Path) -> Iterator[Path]:
    """The folder of shards behind ``--dataset_dir``: a folder as it is, an archive unpacked for as long as it is used.

    A folder that holds nothing but one archive (a remote stage's input) stands for that archive.

    Raises:
        DataError: if there is nothing at ``path``, or a damaged archive.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{path}: no such folder or archive; name a folder of shards or a {ARCHIVE_NAME}")
    archive = place if place.is_file() else lone_archive(place)
    if archive is None:
        yield place
        return
    if not archive.name.endswith(ARCHIVE_SUFFIXES):
        raise DataError(f"{path}: neither a folder nor a {' / '.join(ARCHIVE_SUFFIXES)} archive")
    with tempfile.TemporaryDirectory(prefix="deeplab-data-") as folder:
        unpack(archive, Path(folder))
        yield Path(folder)


def list_shards(folder: Path, split: str) -> list[Path]:
    """The shards of a split, sorted: files named ``SPLIT-*`` in the folder, or else in a folder inside it.

    Raises:
        DataError: if there are none (naming the splits there are), if two folders have some, or if one is missing.
    """
    places = [folder, *sorted(entry for entry in folder.iterdir() if entry.is_dir())]
    found = {place: shards for place in places if (shards := _matching(place, split))}
    if folder in found:
        return _complete(found[folder])
    if len(found) > 1:
        raise DataError(
            f"{folder}: split {split!r} is in several folders: {', '.join(place.name for place in found)}; name one"
        )
    for shards in found.values():
        return _complete(shards)
    splits = sorted({match["split"] for place in places for match in _matches(place)})
    there = f"the splits here are {', '.join(splits)}" if splits else "there are no shards at all; run convert"
    raise DataError(f"{folder}: no shards named {split}-*; {there}")


def lone_archive(folder: Path) -> Path | None:
    """The archive that is all a folder holds, hidden files and the manifest of what fetched it aside."""
    file = lone_file(folder)
    return file if file is not None and file.name.endswith(ARCHIVE_SUFFIXES) else None


def lone_file(folder: Path, besides: Path | None = None) -> Path | None:
    """The file that is all a folder holds, hidden ones and the manifest of what fetched it aside.

    Args:
        folder: where to look.
        besides: a folder that does not count when it lies there.
    """
    output = besides.resolve() if besides else None
    aside = {output, *output.parents} if output else set()
    entries = [
        entry
        for entry in folder.iterdir()
        if not entry.name.startswith(".") and entry.name != "manifest.json" and entry.resolve() not in aside
    ]
    return entries[0] if len(entries) == 1 and entries[0].is_file() else None


def _matching(place: Path, split: str) -> list[Path]:
    return sorted(entry for entry in place.iterdir() if _belongs(entry.name, split) and entry.is_file())


def _belongs(name: str, split: str) -> bool:
    """Whether a file is a shard of the split: of ``train``, but not of ``train-extra``."""
    match = _SHARD.fullmatch(name)
    return match["split"] == split if match else name.startswith(f"{split}-")


def _matches(place: Path) -> Iterator[re.Match[str]]:
    for entry in place.iterdir():
        match = _SHARD.fullmatch(entry.name)
        if match and not entry.name.startswith("."):
            yield match


def _complete(shards: list[Path]) -> list[Path]:
    """The shards, if none of those that their names promise is missing."""
    present = {shard.name for shard in shards}
    for shard in shards:
        match = _SHARD.fullmatch(shard.name)
        if match is None:
            continue
        start, end = match.span("index")
        for index in range(int(match["count"])):
            expected = f"{shard.name[:start]}{index:05d}{shard.name[end:]}"
            if expected not in present:
                raise DataError(f"{shard.parent}: {expected} is missing; convert or fetch the shards again")
    return shards
