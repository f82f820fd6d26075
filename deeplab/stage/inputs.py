"""Digests of what a stage reads: from the manifest of the stage that made it, else from the bytes."""

from pathlib import Path

from deeplab.errors import DataError
from deeplab.stage.manifest import Manifest, combined_digest, manifest_path, remembered_sha256


def input_digest(path: str | Path) -> str:
    """The digest of an input file or folder.

    A folder (or file) that a stage finished has its products' digest; anything else is read.

    Raises:
        DataError: if there is nothing at ``path``.
    """
    place = Path(path)
    if not place.exists():
        raise DataError(f"{path}: no such file or folder")
    manifest_file = manifest_path(place)
    if manifest_file.exists():
        manifest = Manifest.read(manifest_file)
        if manifest.damage(manifest_file.parent) is None:
            return manifest.digest
    if place.is_file():
        return remembered_sha256(place)
    files = (entry for entry in sorted(place.rglob("*")) if entry.is_file())
    return combined_digest(
        {
            entry.relative_to(place).as_posix(): remembered_sha256(entry)
            for entry in files
            if not any(part.startswith(".") for part in entry.relative_to(place).parts)
        }
    )
