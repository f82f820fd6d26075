"""The code that an execution runs: a git commit that the project knows, or an ad-hoc package of a folder.

A package depends on names and contents alone: order, times, owners and modes are fixed, so the same content has the
same identifier and is uploaded once. Mode 0755 goes to files that begin with ``#!``, 0644 to all others.
"""

import gzip
import os
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pathspec import GitIgnoreSpec

from deeplab.stage.manifest import sha256_of
from tasks.valohai.client import Client, passing
from tasks.valohai.errors import PackageError, ValohaiError
from tasks.valohai.records import Commit

_MIB = 2**20
# What ``vh`` refuses, and where it asks.
MOST_FILES = 10_000
MOST_UNPACKED, MOST_PACKED = 2000 * _MIB, 1000 * _MIB
LARGE_FILE, LARGE_TOTAL = 50 * _MIB, 150 * _MIB
_UPLOADS = 4
# zlib's own default; named, since the bytes depend on it.
_LEVEL = 6
# Set where git itself calls us, for instance in a hook: they name its repository, not this folder's.
_GIT_PLACES = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE")


@dataclass(frozen=True)
class Package:
    """A gzipped tar of a folder.

    Attributes:
        path: the tar; it lives as long as the ``packed`` block.
        identifier: ``~`` and the SHA-256 of its bytes.
        files: how many it holds.
        warnings: what a person should know: files that are large for code.
    """

    path: Path
    identifier: str
    files: int
    warnings: tuple[str, ...]


def ensure_commit(
    client: Client,
    root: Path,
    *,
    commit: str | None = None,
    yaml_path: str = "valohai.yaml",
    warn: Callable[[str], None] | None = None,
) -> Commit:
    """A commit of the project that holds the code.

    Args:
        client: of the project.
        root: folder of the code.
        commit: a git commit (whole or its beginning; ``HEAD``: the one that is checked out); None: package the folder.
        yaml_path: of the steps, from ``root``.
        warn: receives what a person should know.

    Raises:
        PackageError: for a folder that cannot be packed, or a commit that the project cannot get.
    """
    if commit is not None:
        return _git_commit(client, _head(root) if commit == "HEAD" else commit)
    with packed(root, yaml_path) as package:
        for warning in package.warnings if warn else ():
            assert warn is not None
            warn(warning)
        return _known(client, package.identifier) or _upload(client, package, root, yaml_path)


def _known(client: Client, identifier: str) -> Commit | None:
    found = client.commit(identifier)
    if found is None or not found.adhoc:
        return None
    # The service once handed out packages of other projects.
    return found if found.project_id in (None, client.project.id) else None


def _upload(client: Client, package: Package, root: Path, yaml_path: str) -> Commit:
    description = _git(root, "describe", "--always", "--long", "--dirty", "--all") or b""
    for remaining in reversed(range(_UPLOADS)):
        try:
            return client.import_package(
                package.path, description=description.decode("utf-8", "replace").strip(), yaml_path=yaml_path
            )
        except ValohaiError as error:
            # The reads that follow wait until the service answers again.
            if not passing(error) or not remaining:
                raise
            if found := _known(client, package.identifier):
                return found
    raise AssertionError("unreachable")


def _git_commit(client: Client, wanted: str) -> Commit:
    for fetched in (False, True):
        errors = client.fetch() if fetched else []
        found = [commit for commit in client.commits() if commit.identifier.startswith(wanted)]
        exact = [commit for commit in found if commit.identifier == wanted]
        if exact or found:
            return (exact or found)[0]
    trouble = f" (its repository says: {'; '.join(errors)})" if errors else ""
    raise PackageError(
        f"commit {wanted}: project {client.project.name!r} cannot find it{trouble}; push it to the project's "
        "repository, or run without a commit to hand over this folder"
    )


def _head(root: Path) -> str:
    head = _git(root, "rev-parse", "HEAD")
    if head is None:
        raise PackageError(f"{root}: is no git repository with a commit; name a commit, or hand over the folder")
    if _git(root, "status", "--porcelain", "--", "."):
        raise PackageError(f"{root}: has changes that its commit lacks; commit them, or hand over the folder")
    return head.decode().strip()


@contextmanager
def packed(root: Path, yaml_path: str = "valohai.yaml") -> Iterator[Package]:
    """Pack a folder into a temporary file.

    Raises:
        PackageError: for a folder without files or yaml, or above the limits.
    """
    names = list_files(root)
    sizes = {name: (root / name).stat().st_size for name in names if not (root / name).is_symlink()}
    _check(root, names, sum(sizes.values()), yaml_path)
    with tempfile.TemporaryDirectory(prefix="deeplab-package-") as folder:
        path = Path(folder) / "data.tgz"
        with path.open("wb") as file:
            _write(file, root, names)
        if path.stat().st_size > MOST_PACKED:
            raise PackageError(f"{root}: packed it has {path.stat().st_size // _MIB} MiB; {_limit(MOST_PACKED)}")
        yield Package(path, f"~{sha256_of(path)}", len(names), tuple(_warnings(root, sizes)))


def _check(root: Path, names: list[str], total: int, yaml_path: str) -> None:
    if yaml_path not in names:
        raise PackageError(
            f"{root}: {yaml_path} is missing, or ignored by .gitignore or .vhignore; the steps stand there"
        )
    if len(names) > MOST_FILES:
        raise PackageError(f"{root}: has {len(names)} files; at most {MOST_FILES} can be handed over. {_REMEDY}")
    if total > MOST_UNPACKED:
        raise PackageError(f"{root}: has {total // _MIB} MiB; {_limit(MOST_UNPACKED)}")


_REMEDY = "Name what the code does not need in .vhignore"


def _limit(most: int) -> str:
    return f"at most {most // _MIB} MiB can be handed over. {_REMEDY}"


def _warnings(root: Path, sizes: dict[str, int]) -> Iterator[str]:
    for name, size in sizes.items():
        if size > LARGE_FILE:
            yield f"{root / name} has {size // _MIB} MiB, which is much for code. {_REMEDY}"
    if sum(sizes.values()) > LARGE_TOTAL:
        yield f"{root} has {sum(sizes.values()) // _MIB} MiB, which is much for code. {_REMEDY}"


def _write(file: IO[bytes], root: Path, names: Iterable[str]) -> None:
    with gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0) as packing:
        with tarfile.open(fileobj=packing, mode="w", format=tarfile.PAX_FORMAT) as tar:
            for name in names:
                _add(tar, root, name)


def _add(tar: tarfile.TarFile, root: Path, name: str) -> None:
    path, member = root / name, tarfile.TarInfo(name)
    member.mode = 0o644
    try:
        if path.is_symlink():
            member.type, member.linkname = tarfile.SYMTYPE, path.readlink().as_posix()
            tar.addfile(member)
            return
        with path.open("rb") as content:
            if content.read(2) == b"#!":
                member.mode = 0o755
            content.seek(0, 2)
            member.size = content.tell()
            content.seek(0)
            tar.addfile(member, content)
    except OSError as error:
        raise PackageError(
            f"{path}: cannot be packed ({error.strerror or error}); try again when it is at rest"
        ) from None


def list_files(root: Path) -> list[str]:
    """The files of a package, from ``root``, sorted.

    In a git repository those that git tracks or would track, else all; without what ``.vhignore`` names and without
    names at the top that begin with a dot.
    """
    listed = _listed_by_git(root)
    names = _walked(root) if listed is None else listed
    ignored = _spec(root / ".vhignore")
    kept = (name for name in names if not name.startswith(".") and not ignored.match_file(name))
    return sorted(name for name in kept if _packable(root, name))


def _packable(root: Path, name: str) -> bool:
    path = root / name
    if not path.is_symlink():
        return path.is_file()  # git still lists a deleted file
    target = path.readlink()
    if target.is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        raise PackageError(f"{path}: is a link out of the folder, to {target}; copy the file, or name it in .vhignore")
    return True


def _listed_by_git(root: Path) -> set[str] | None:
    tracked = _git(root, "ls-files", "--recurse-submodules", "-cz")
    others = _git(root, "ls-files", "--exclude-standard", "-oz")
    if tracked is None or others is None:
        return None
    return {name.decode("utf-8", "surrogateescape") for name in (tracked + others).split(b"\0") if name}


def _walked(root: Path) -> set[str]:
    """Without git: all files but hidden ones and those that ``.gitignore`` at the top names."""
    ignored = _spec(root / ".gitignore")
    names = (path.relative_to(root) for path in root.rglob("*") if path.is_symlink() or path.is_file())
    visible = (name for name in names if not any(part.startswith(".") for part in name.parts))
    return {name.as_posix() for name in visible if not ignored.match_file(name.as_posix())}


def _spec(path: Path) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(path.read_text(encoding="utf-8").splitlines() if path.is_file() else [])


def _git(root: Path, *arguments: str) -> bytes | None:
    """What git prints; None where there is no git, or no repository."""
    # A repository of another owner (a mounted one) is read all the same; none of its programs is run.
    command = ["git", "-c", "safe.directory=*", "-c", "core.fsmonitor=false", *arguments]
    environment = {name: value for name, value in os.environ.items() if name not in _GIT_PLACES}
    try:
        done = subprocess.run(
            command, cwd=root, capture_output=True, timeout=120, check=False, env=environment, stdin=subprocess.DEVNULL
        )
    except (FileNotFoundError, NotADirectoryError):
        return None
    return done.stdout if done.returncode == 0 else None


def package_identifier(root: Path, yaml_path: str = "valohai.yaml") -> str:
    """The identifier that a folder's package has."""
    with packed(root, yaml_path) as package:
        return package.identifier
