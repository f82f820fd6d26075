"""Digests of what a stage reads: from the manifest of the stage that made it, else from the bytes."""

import json
import os
from pathlib import Path

from deeplab.errors import DataError
from deeplab.stage.manifest import FILE_NAME, Manifest, combined_digest, manifest_path, remembered_sha256


def input_digest(path: str | Path) -> str:
    """The digest of an input file or folder.

    A folder (or file) that a stage finished has its products' digest; anything else is read.

    Raises:
        DataError: if there is nothing at ``path``.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{path}: no such file or folder")
    told = _told(place)
    if told is not None:
        return told
    if place.is_file():
        return remembered_sha256(place)
    return combined_digest({file.relative_to(place).as_posix(): remembered_sha256(file) for file in _visible(place)})


def archive_digest(place: Path, archive: Path | None) -> str:
    """The digest of an archive, or of the folder whose only content it is, whatever has come there since."""
    if archive is not None and place.is_dir():
        told = _told(place, alone=False)
        return told if told is not None else remembered_sha256(archive)
    return input_digest(place)


def files_below(place: Path) -> list[Path]:
    """All files of a folder and of the folders in it, linked ones too, sorted."""
    found, seen = list[Path](), set[tuple[int, int]]()
    for folder, folders, names in os.walk(place, followlinks=True):
        stat = Path(folder).stat()
        if (stat.st_dev, stat.st_ino) in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add((stat.st_dev, stat.st_ino))
        found += (file for name in names if (file := Path(folder, name)).is_file())
    return sorted(found)


def _visible(place: Path) -> list[Path]:
    files = files_below(place)
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(place).parts)]


def _told(place: Path, *, alone: bool = True) -> str | None:
    """What the manifest of a finished stage says, as long as it is ours and its products are whole.

    Args:
        place: a stage's output.
        alone: count out a fetched file beside which something else has come: it was perhaps unpacked there.
    """
    file = manifest_path(place)
    if not file.exists() or _is_foreign(file):
        return None
    manifest = Manifest.read(file)
    if manifest.damage(file.parent) is not None:
        return None
    if alone and manifest.stage == "fetch" and place.is_dir():
        known = {place / FILE_NAME, *(place / output.path for output in manifest.outputs)}
        if not known.issuperset(_visible(place)):
            return None
    return manifest.digest


def _is_foreign(file: Path) -> bool:
    """Whether a file of a manifest's name is some other tool's."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False  # perhaps a damaged one of ours
    return not (isinstance(content, dict) and {"stage", "code_version"} & content.keys())
