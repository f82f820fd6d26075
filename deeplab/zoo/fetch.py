"""Fetch a published checkpoint: its archive, unpacked, with the ``model.json`` that later stages read.

The download goes to a hidden folder, is checked, unpacked and sealed there, and appears under its name by one rename.
"""

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from deeplab.config import Flags
from deeplab.config.base import flag
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.download import discard, download, find_origin
from deeplab.data.packing import unpack
from deeplab.errors import DataError, FetchError, OutputError
from deeplab.stage.manifest import Manifest, describe_output, manifest_path, products_digest, where_it_ran
from deeplab.zoo.catalogue import Published
from deeplab.zoo.lock import LOCK_NAME, Expected, Locked, expected_digest, record

MIRROR_VARIABLE = "DEEPLAB_ZOO_MIRROR"
_STAGE, _CODE_VERSION = "zoo", 1
# How far an archive's size may be from the published one besides its rounding: a megabyte may mean 2^20 bytes (5 %).
_SIZE_TOLERANCE = 0.1

_log = logging.getLogger(__name__)


class ZooFetchConfig(Flags):
    """Bring a published checkpoint here, unpacked, ready for the other commands."""

    output_dir: str = flag(..., "Folder that receives a folder per checkpoint, and zoo.lock.json.", key=False)
    mirror: str | None = flag(
        None,
        f"URL or folder that holds the archives; empty: {MIRROR_VARIABLE} from the environment, else the official one.",
        key=False,
    )
    sha256: str | None = flag(
        None, "Expected SHA-256 of the archive, 64 hexadecimal digits.", pattern="^[0-9a-fA-F]{64}$"
    )


def fetch(published: Published, config: ZooFetchConfig, base_url: str) -> Path:
    """Bring a checkpoint to its folder in ``output_dir``, or see that it is there.

    Args:
        published: which.
        config: where to, and from where.
        base_url: where archives are without a mirror.

    Returns:
        The checkpoint's prefix.

    Raises:
        ConfigError: if ``--sha256`` contradicts the lock file, or that file cannot be read.
        FetchError: if the archive cannot be had, or is another than expected.
        DataError: if it is damaged or holds no checkpoint.
        OutputError: if ``output_dir`` cannot be written, or holds a folder of that name from elsewhere.
    """
    root, started = Path(config.output_dir), time.monotonic()
    folder, lock_path = root / published.archive, root / LOCK_NAME
    with _alone(root):
        expected = expected_digest(lock_path, published.archive, config.sha256)
        if _is_whole(folder, expected):
            _log.info("%s: already here, whole", folder)
            return _prefixes(folder)[0]
        work = root / f".unfinished-{published.archive}"
        archive = work / published.file_name
        locked = _bring(published, _source(published, config.mirror, base_url), archive, expected)
        tree = _unpacked(archive, locked.url)
        _seal(tree, published, locked, time.monotonic() - started)
        record(lock_path, published.archive, locked)
        _install(tree, folder)
        shutil.rmtree(work)
    return _prefixes(folder)[0]


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """One process at a time; another one waits."""
    lock = FileLock(root / ".lock")
    try:
        root.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.info("%s: another process is fetching there; waiting for it", root)
            lock.acquire()
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{root}: cannot be written ({reason}); choose another --output_dir") from None
    try:
        yield
    finally:
        lock.release()


def _source(published: Published, mirror: str | None, base_url: str) -> str:
    place = mirror or os.environ.get(MIRROR_VARIABLE) or base_url
    # A signature (?sig=…) stays behind the file's name.
    address, mark, query = place.partition("?") if "://" in place else (place, "", "")
    return f"{address.rstrip('/')}/{published.file_name}{mark}{query}"


def _is_whole(folder: Path, expected: Expected | None) -> bool:
    """Whether the folder is there as it was fetched.

    Raises:
        OutputError: if it is not this command's work, or came from another archive than expected.
    """
    if not folder.exists():
        return False
    manifest_file = manifest_path(folder)
    manifest = Manifest.read(manifest_file) if manifest_file.is_file() else None
    if manifest is None or manifest.stage != _STAGE:
        raise OutputError(
            f"{folder}: exists and was not made by this command; move it away or choose another --output_dir"
        )
    found = manifest.inputs.get("archive")
    if expected is not None and found != expected.sha256:
        raise OutputError(
            f"{folder}: came from an archive of sha256 {found}, but {expected.said_by} says {expected.sha256}; "
            "move the folder away to fetch again"
        )
    damage = manifest.damage(folder)
    if damage is not None:
        _log.warning("%s: %s; fetching it again", folder, damage)
    return damage is None


def _bring(published: Published, source: str, archive: Path, expected: Expected | None) -> Locked:
    with _pointing_at_mirrors(published):
        origin = find_origin(source)
    if expected is None:
        _check_size(published, origin.size, origin.shown)
    archive.parent.mkdir(exist_ok=True)
    with _pointing_at_mirrors(published):
        found = download(origin, archive)
    if expected is not None and found != expected.sha256:
        discard(archive)
        raise FetchError(
            f"{origin.shown}: sha256 is {found}, but {expected.said_by} says {expected.sha256}; {expected.remedy}"
        )
    return Locked(sha256=found, size=archive.stat().st_size, url=origin.shown)


@contextmanager
def _pointing_at_mirrors(published: Published) -> Iterator[None]:
    try:
        yield
    except FetchError as error:
        hint = f"--mirror=URL or {MIRROR_VARIABLE} names another place that holds {published.file_name}"
        raise FetchError(f"{error}; {hint}") from None


def _check_size(published: Published, size: int | None, shown: str) -> None:
    """Refuse, before it is transferred, what cannot be the published archive; sizes in bytes."""
    if size is None or published.megabytes is None:
        return
    rounding = 0.05 if published.megabytes % 1 else 0.5
    allowed = published.megabytes * _SIZE_TOLERANCE + rounding
    if abs(size / 1e6 - published.megabytes) > allowed:
        raise FetchError(
            f"{shown}: has {size / 1e6:.3g} MB, but the published archive about {published.megabytes:g} MB, so it is "
            "something else; choose another --mirror, or vouch for this one with --sha256"
        )


def _unpacked(archive: Path, shown: str) -> Path:
    """Unpack beside the archive; returns the folder that holds the files, without any lone folders around it."""
    tree = archive.with_name("content")
    shutil.rmtree(tree, ignore_errors=True)
    try:
        unpack(archive, tree)
        # macOS's tar adds these; ._model.ckpt.index would pass for a checkpoint.
        for path in [path for path in tree.rglob("._*") if path.is_file()]:
            path.unlink()
        if not _prefixes(tree):
            names = ", ".join(sorted(path.name for path in tree.rglob("*") if path.is_file())[:5])
            raise DataError(f"{archive}: holds {names or 'nothing'} but no checkpoint (*.index); fetch another archive")
    except DataError as error:
        discard(archive)
        raise DataError(f"{shown}: {str(error).removeprefix(f'{archive}: ')}") from None
    while len(entries := list(tree.iterdir())) == 1 and entries[0].is_dir():
        tree = entries[0]
    return tree


def _prefixes(folder: Path) -> list[Path]:
    """The checkpoints in a folder. (``deeplab.model.checkpoint`` finds them too, but brings TensorFlow along.)"""
    return sorted(index.with_suffix("") for index in folder.rglob("*.index"))


def _seal(tree: Path, published: Published, locked: Locked, seconds: float) -> None:
    """Write ``model.json`` beside each checkpoint, and the manifest."""
    description = published.description()
    if description is not None:
        for folder in {prefix.parent for prefix in _prefixes(tree)}:
            description.write(folder / DESCRIPTION_NAME)
    files = sorted(path for path in tree.rglob("*") if path.is_file() and path != manifest_path(tree))
    outputs = tuple(describe_output(tree, path, "product") for path in files)
    Manifest(
        stage=_STAGE,
        code_version=_CODE_VERSION,
        parameters={"name": published.id},
        inputs={"archive": locked.sha256},
        outputs=outputs,
        digest=products_digest(outputs),
        ran=where_it_ran(seconds),
    ).write(manifest_path(tree))


def _install(tree: Path, folder: Path) -> None:
    """Give the unpacked files their place at once; where a damaged copy stands, replace its files, manifest last."""
    if not folder.exists():
        tree.rename(folder)
        return
    files = [path for path in tree.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: path == manifest_path(tree)):
        target = folder / path.relative_to(tree)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
