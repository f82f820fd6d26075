"""Inputs that no stage of the flow made: a person's files and addresses."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

from deeplab.config import ModelDescription
from deeplab.config.description import FILE_NAME
from deeplab.data.azure import account_name, parse
from deeplab.data.fetch import find_origin
from deeplab.data.origin import without_secrets
from deeplab.errors import ConfigError, DataError, FetchError
from deeplab.inference.photos import require_photos
from deeplab.stage.inputs import input_digest
from deeplab.stage.manifest import Manifest, combined_digest, manifest_path, remembered_sha256
from tasks.call import OUTPUTS
from tasks.errors import StoreError
from tasks.mirror import Mirror
from tasks.result import StageResult, shown

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_DATUM = "datum://"
# What Valohai opens itself.
_VALOHAI_PROTOCOLS = ("azure", "datum", "gs", "http", "https", "s3")


@dataclass(frozen=True)
class UserFiles:
    """Files of a person, somewhere on this machine.

    Attributes:
        place: as it was given: a file, a folder, a glob, or a checkpoint's prefix.
        files: what an execution would need of them.
        measure: makes the digest.
        mirror: where an execution can read them after an upload.
        flag: the flag that named them.
        digest: stands for the content.
    """

    place: str
    files: Sequence[Path]
    measure: Callable[[], str] = field(repr=False, compare=False)
    mirror: Mirror | None
    flag: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", self.measure())

    def check(self) -> None:
        """See that the content is still what the digest was made of.

        Raises:
            DataError: if it is not.
        """
        if self.measure() != self.digest:
            raise DataError(f"--{self.flag}={self.place} has changed since this run looked at it; run it again")

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
        self.check()
        names = Counter(path.name for path in self.files)
        twice = [name for name, count in names.items() if count > 1]
        if twice:
            raise StoreError(
                f"--{self.flag}={self.place}: {names[twice[0]]} files are called {twice[0]}, and an execution has its "
                "files in one folder; give them different names, or let the stage run here"
            )
        return [self.mirror.upload(path, self.digest) for path in self.files]


@dataclass(frozen=True)
class Address:
    """Something that whoever needs it reads from where it is.

    Attributes:
        url: address or path.
        digest: stands for the content.
        flags: what the stage ``fetch`` needs to know besides.
    """

    url: str
    digest: str
    flags: Mapping[str, Any] = field(default_factory=dict)

    def here(self) -> str:
        """The address: for the stage ``fetch``, which alone opens such."""
        return self.url

    def addresses(self) -> list[str]:
        """The address."""
        return [valohai_address(self.url)]


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        result: what the stage left.
        source: where it came from.
    """

    result: StageResult
    source: str

    @property
    def digest(self) -> str:
        """Stands for the file's name and content."""
        return self.result.digest

    def here(self) -> Path:
        """The file."""
        products = [output.path for output in self.result.manifest.outputs if output.kind == "product"]
        if len(products) != 1:
            raise FetchError(
                f"{self.result.place}: holds {len(products)} files instead of one; delete it and run again"
            )
        return self.result.here() / products[0]

    def addresses(self) -> list[str]:
        """Where an execution can read it: where it came from, unless that is this machine's disk."""
        return [valohai_address(self.source)] if is_url(self.source) else self.result.addresses()


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


def lies_here(store: str) -> bool:
    """Whether a store is a folder of this machine: a path, or one written as ``file://``."""
    return not is_url(store) or store.startswith("file://")


def valohai_address(url: str) -> str:
    """An address as Valohai writes it.

    Raises:
        StoreError: if it cannot open such.
    """
    protocol = url.partition("://")[0].lower()
    if protocol in _VALOHAI_PROTOCOLS:
        return url
    found = parse(url)
    if found is None:
        raise StoreError(
            f"{without_secrets(url)}: Valohai opens {'://, '.join(_VALOHAI_PROTOCOLS)}:// addresses; give such a one, "
            "or let the stage run here (--backend=local)"
        )
    return f"azure://{account_name(url)}/{found.path}"


def address(url: str, azure_endpoint: str | None = None) -> Address:
    """A URL or path with what tells its content from another: name, size, and ETag or time of change.

    Args:
        url: the address.
        azure_endpoint: of the blob service that an Azure address is looked for at.

    Raises:
        FetchError: if there is nothing.
        ConfigError: for the alias of a datum: what it stands for may change, and nothing here would notice.
    """
    if url.startswith(_DATUM):
        try:
            UUID(url.removeprefix(_DATUM))
        except ValueError:
            raise ConfigError(
                f"{url}: an alias, whose content may change; name the file itself, datum://ID, as its page on Valohai "
                "shows it"
            ) from None
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

        def measure() -> str:
            return combined_digest({file.name: remembered_sha256(file) for file in _parts(Path(place))})

        return UserFiles(place, parts, measure, mirror, flag)
    return files(place, mirror, flag)


def files(place: str, mirror: Mirror | None, flag: str) -> UserFiles | Address:
    """A file or a folder of files, or an address.

    Raises:
        DataError: if there is none.
    """
    if is_url(place):
        return address(place)
    path = Path(place)
    found = sorted(file for file in path.iterdir() if _counts(file)) if path.is_dir() else [path]
    return UserFiles(place, found, partial(input_digest, path), mirror, flag)


def network(place: str, mirror: Mirror | None, flag: str) -> tuple[UserFiles | Address, ModelDescription | None]:
    """A frozen graph or a checkpoint, and what its ``model.json`` tells, if there is one that can be read here.

    The folder of a store's exports, ``STORE/export``, stands for the graph that was exported last.

    Raises:
        DataError: if there is nothing.
    """
    if is_url(place):
        return address(place), None
    path = _last_export(Path(place))
    place = str(path)
    beside = path.with_name(f"{path.name}.{FILE_NAME}")
    if path.is_file() and beside.is_file():

        def measure() -> str:
            return combined_digest({"": remembered_sha256(path), ".model.json": remembered_sha256(beside)})

        return UserFiles(place, [path, beside], measure, mirror, flag), ModelDescription.read(beside)
    inside = (path if path.is_dir() else path.parent) / FILE_NAME
    described = inside.is_file() and not path.is_file()
    return checkpoint(place, mirror, flag), ModelDescription.read(inside) if described else None


def _last_export(path: Path) -> Path:
    """The newest whole graph of a store's folder of exports; any other path as it is."""
    graphs = list[tuple[float, Path]]()
    for graph in path.glob(f"*/{OUTPUTS['export'][1]}"):
        manifest = manifest_path(graph)
        with suppress(DataError, OSError):  # one that is unfinished, damaged or being removed does not count
            if Manifest.read(manifest).damage(graph.parent) is None:
                graphs.append((manifest.stat().st_mtime, graph))
    return max(graphs)[1] if graphs else path


def _parts(prefix: Path) -> list[Path]:
    """The files of a checkpoint that was named by its prefix."""
    if prefix.exists() or not prefix.name:
        return []
    return sorted(file for file in prefix.parent.glob(f"{prefix.name}.*") if file.is_file())


def photos(place: str, mirror: Mirror | None, flag: str = "predict.images") -> UserFiles | Address:
    """A photo, a folder or a glob, or an address; the names count too, because the masks carry them.

    Raises:
        DataError: if there is no photo at ``place``.
    """
    if is_url(place):
        return address(place)
    path = Path(place)
    files = _matches(path, place)
    if path.is_dir():
        return UserFiles(place, files, partial(input_digest, path), mirror, flag)
    names = Counter(file.name for file in files)

    def measure() -> str:
        named = {(file.name if names[file.name] == 1 else str(file)): remembered_sha256(file) for file in files}
        return combined_digest(named)

    return UserFiles(place, files, measure, mirror, flag)


def check_photos(place: str) -> None:
    """See that there is a photo before hours of work that end in a look at it.

    Raises:
        DataError: if there is none at ``place``.
        FetchError: if there is nothing at the address.
    """
    if is_url(place):
        address(place)
    else:
        _matches(Path(place), place)


def _matches(path: Path, place: str) -> list[Path]:
    if not path.exists() and not any(sign in place for sign in "*?["):
        raise DataError(f"{shown(path)}: no such file or folder; name a photo, a folder or a glob of photos")
    require_photos(place)
    if path.is_file():
        return [path]
    if path.is_dir():
        return sorted(file for file in path.rglob("*") if _counts(file))
    matches = sorted(Path(path.anchor or ".").glob(str(path.relative_to(path.anchor))))
    return [match for match in matches if match.is_file()]


def _counts(file: Path) -> bool:
    return file.is_file() and not file.name.startswith(".")
