"""Where photos come from: a file, a folder, a glob, or the records of a data folder."""

import glob
import io
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from deeplab.data.packing import ARCHIVE_SUFFIXES
from deeplab.data.shards import list_shards, lone_archive, open_data_folder
from deeplab.data.tfrecord import index_records, parse_example, read_records
from deeplab.errors import DataError

_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"}


def photo_count(source: str, split: str, limit: int | None) -> int:
    """How many photos ``read_photos`` will yield."""
    place = Path(source)
    if _is_data_folder(place):
        with open_data_folder(place) as folder:
            found = sum(len(index_records(shard)) for shard in list_shards(folder, split))
    else:
        found = len(photo_files(source))
    return found if limit is None else min(found, limit)


def read_photos(source: str, split: str, limit: int | None) -> Iterator[tuple[str, Image.Image]]:
    """Names (without suffix, unique) and upright photos.

    A photo taken with a turned camera is turned upright, as every viewer shows it.

    Raises:
        DataError: if there is no photo, or one cannot be decoded.
    """
    seen: set[str] = set()
    for name, content in islice(_entries(source, split), limit):
        try:
            with Image.open(io.BytesIO(content)) as opened:
                photo = ImageOps.exif_transpose(opened).convert("RGB")
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            raise DataError(f"{name}: not a readable image ({error}); remove or replace it") from None
        yield _unique(Path(name).stem, seen), photo


def _entries(source: str, split: str) -> Iterator[tuple[str, bytes]]:
    place = Path(source)
    if _is_data_folder(place):
        yield from _from_records(place, split)
        return
    for path in photo_files(source):
        yield str(path), path.read_bytes()


def _is_data_folder(place: Path) -> bool:
    """Shards, an archive of them, or a folder with nothing but such an archive."""
    if place.is_dir():
        return any(place.glob("[!.]*.tfrecord")) or lone_archive(place) is not None
    return place.name.endswith(ARCHIVE_SUFFIXES)


def _from_records(place: Path, split: str) -> Iterator[tuple[str, bytes]]:
    with open_data_folder(place) as folder:
        for shard in list_shards(folder, split):
            for number, record in enumerate(read_records(shard)):
                yield _photo_of(record, shard, number)


def _photo_of(record: bytes, shard: Path, number: int) -> tuple[str, bytes]:
    """Name and encoded photo of a record; one without a file name is called after its place."""
    try:
        example = parse_example(record)
    except DataError as error:
        raise DataError(f"{shard}: record {number}: {error}") from None
    name, content = example.get("image/filename"), example.get("image/encoded")
    if not isinstance(content, bytes) or not content:
        raise DataError(f"{shard}: record {number}: it has no photo (image/encoded); convert the data again")
    stem = name.decode(errors="replace") if isinstance(name, bytes) else ""
    return stem or f"{shard.stem}-{number}", content


def require_photos(source: str) -> None:
    """See that there are photos, or records of them.

    Raises:
        DataError: if there is nothing that could be segmented.
    """
    if not _is_data_folder(Path(source)):
        photo_files(source)


def photo_files(source: str) -> list[Path]:
    """The photos at a path, in a folder or behind a glob.

    Raises:
        DataError: if there is none.
    """
    place = Path(source)
    if place.is_dir():
        found = sorted(path for path in place.rglob("*") if path.suffix.lower() in _SUFFIXES)
    elif place.is_file():
        found = [place]
    else:
        found = sorted(Path(name) for name in glob.glob(source, recursive=True))
    if not found:
        suffixes = ", ".join(sorted(_SUFFIXES))
        raise DataError(f"--images={source}: no photo there; name a photo, a folder or a glob ({suffixes})")
    return found


def _unique(stem: str, seen: set[str]) -> str:
    name, number = stem, 1
    while name in seen:
        number += 1
        name = f"{stem}_{number}"
    seen.add(name)
    return name
