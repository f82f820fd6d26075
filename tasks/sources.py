"""Inputs that no stage of the flow made: a person's files and addresses."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from deeplab.config import ModelDescription
from deeplab.config.description import FILE_NAME
from deeplab.data.fetch import find_origin
from deeplab.errors import DataError
from deeplab.stage.inputs import input_digest
from deeplab.stage.manifest import combined_digest, remembered_sha256
from tasks.errors import StoreError
from tasks.mirror import Mirror
from tasks.result import StageResult, shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


@dataclass(frozen=True)
class UserFiles:
    """Files of a person, somewhere on this machine.

    Attributes:
        place: as it was given: a file, a folder, a glob, or a checkpoint's prefix.
        files: what an execution would need of them.
        digest: stands for the content.
        mirror: where an execution can read them after an upload.
        flag: the flag that named them.
    """

    place: str
    files: Sequence[Path]
    digest: str
    mirror: Mirror | None
    flag: str

    def here(self) -> Path:
        """The place itself."""
        return Path(self.place)

    def addresses(self) -> list[str]:
        """Upload the files, those that are not there yet, and tell where they are."""
        if self.mirror is None:
            raise StoreError(
                f"--{self.flag}={self.place} can only be read on this machine: give --store=az://CONTAINER/FOLDER, "
                "to which it can be uploaded, or an address that Valohai can read"
            )
        return [self.mirror.upload(path, self.digest) for path in self.files]


@dataclass(frozen=True)
class Address:
    """Something that whoever needs it reads from where it is.

    Attributes:
        url: address or path.
        digest: stands for the content.
    """

    url: str
    digest: str

    def here(self) -> str:
        """The address, which the stage opens itself."""
        return self.url

    def addresses(self) -> list[str]:
        """The address."""
        return [self.url]


@dataclass(frozen=True)
class TrainedCheckpoint:
    """What a training left, for stages that read a checkpoint.

    Attributes:
        training: the training; its digest counts, and its folder is read here.
        archive: the archive of its last checkpoint, which is what an execution reads.
    """

    training: StageResult
    archive: StageResult

    @property
    def digest(self) -> str:
        """Digest of the training's products."""
        return self.training.digest

    def here(self) -> Path:
        """The training's folder."""
        return self.training.here()

    def addresses(self) -> list[str]:
        """Where the archive is."""
        return self.archive.addresses()


def is_url(place: str) -> bool:
    """Whether a place is an address and not a path."""
    return _URL.match(place) is not None


def address(url: str, azure_endpoint: str | None = None) -> Address:
    """A URL or path with what tells its content from another: name, size, and ETag or time of change.

    Args:
        url: the address.
        azure_endpoint: of the blob service that an Azure address is looked for at.

    Raises:
        FetchError: if there is nothing.
    """
    if url.startswith("datum://"):
        return Address(url, combined_digest({"datum": url}))  # the content of a datum never changes
    return Address(url, combined_digest(find_origin(url, azure_endpoint).identity))


def checkpoint(place: str, mirror: Mirror | None, flag: str = "train.tf_initial_checkpoint") -> UserFiles | Address:
    """A checkpoint that came from elsewhere: an address, a folder, an archive, or the prefix of its files.

    Raises:
        DataError: if there is none.
    """
    if is_url(place):
        return address(place)
    parts = _parts(Path(place))
    if parts:
        digest = combined_digest({file.name: remembered_sha256(file) for file in parts})
        return UserFiles(place, parts, digest, mirror, flag)
    return files(place, mirror, flag)


def files(place: str, mirror: Mirror | None, flag: str) -> UserFiles | Address:
    """A file or a folder of files, or an address.

    Raises:
        DataError: if there is none.
    """
    if is_url(place):
        return address(place)
    path = Path(place)
    digest = input_digest(path)
    found = [path] if path.is_file() else sorted(file for file in path.iterdir() if _counts(file))
    return UserFiles(place, found, digest, mirror, flag)


def network(place: str, mirror: Mirror | None, flag: str) -> tuple[UserFiles | Address, ModelDescription | None]:
    """A frozen graph or a checkpoint, and what its ``model.json`` tells, if there is one that can be read here.

    Raises:
        DataError: if there is nothing.
    """
    if is_url(place):
        return address(place), None
    path = Path(place)
    beside = path.with_name(f"{path.name}.{FILE_NAME}")
    if path.is_file() and beside.is_file():
        digest = combined_digest({"": remembered_sha256(path), ".model.json": remembered_sha256(beside)})
        return UserFiles(place, [path, beside], digest, mirror, flag), ModelDescription.read(beside)
    inside = (path if path.is_dir() else path.parent) / FILE_NAME
    described = inside.is_file() and not path.is_file()
    return checkpoint(place, mirror, flag), ModelDescription.read(inside) if described else None


def _parts(prefix: Path) -> list[Path]:
    """The files of a checkpoint that was named by its prefix."""
    if prefix.exists() or not prefix.name:
        return []
    return sorted(file for file in prefix.parent.glob(f"{prefix.name}.*") if file.is_file())


def photos(place: str, mirror: Mirror | None, flag: str = "predict.images") -> UserFiles:
    """A photo, a folder or a glob; the names count too, because the masks carry them.

    Raises:
        DataError: if there is nothing at ``place``.
    """
    path = Path(place)
    files = _matches(path, place)
    named = {file.name: remembered_sha256(file) for file in files} if path.is_file() or not path.exists() else {}
    return UserFiles(place, files, combined_digest(named) if named else input_digest(path), mirror, flag)


def _matches(path: Path, place: str) -> list[Path]:
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if _counts(file))
    if not any(sign in place for sign in "*?["):
        raise DataError(f"{shown(path)}: no such file or folder; name a photo, a folder or a glob of photos")
    matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    return [match for match in matches if match.is_file()]


def _counts(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")
