"""The manifest: what a finished stage left, with sizes and digests, from what, and where it ran.

It is written last, by rename; a folder without one is unfinished.
"""

import hashlib
import json
import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.errors import DataError
from deeplab.version import __version__

FILE_NAME = "manifest.json"


class Output(BaseModel):
    """One file of a stage: a *product* (deterministic, in the digest) or a *record* (logs, timings)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    kind: Literal["product", "record"]
    size: int
    sha256: str
    mtime_ns: int

    def shortfall(self, folder: Path) -> str | None:
        """What is wrong with the file as far as its size tells, or None; nothing is read."""
        try:
            size = (folder / self.path).stat().st_size
        except OSError:
            return f"{self.path} is missing"
        return None if size == self.size else f"{self.path} has {size} bytes instead of {self.size}"


class Manifest(BaseModel):
    """The content of ``manifest.json``.

    ``digest`` stands for the products, whatever the stage's parameters were; ``notes`` is what the stage says of them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    stage: str
    code_version: int
    parameters: dict[str, Any]
    inputs: dict[str, str]
    outputs: tuple[Output, ...]
    digest: str
    notes: dict[str, Any] = {}
    version: str = __version__
    ran: dict[str, Any] = {}

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """Read a manifest.

        Raises:
            DataError: if the file is not one.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise DataError(f"{path}: not a manifest ({str(error).splitlines()[0]}); delete it to run again") from None

    def write(self, path: Path) -> None:
        """Write by rename, so that a manifest is whole or absent."""
        temporary = path.with_name(f".tmp-{path.name}")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(self.model_dump(mode="json"), indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)

    def damage(self, folder: Path, *, deep: bool = False) -> str | None:
        """Why the files no longer are what the manifest says, or None.

        Args:
            folder: the folder that output paths are relative to.
            deep: compare contents (sha256), not only sizes and modification times.
        """
        for output in self.outputs:
            path = folder / output.path
            shortfall = output.shortfall(folder)
            if shortfall is not None:
                return shortfall
            touched = output.kind == "product" and path.stat().st_mtime_ns != output.mtime_ns
            if touched and remembered_sha256(path) != output.sha256:
                return f"{output.path} was changed"
            if deep and sha256_of(path) != output.sha256:
                return f"{output.path} has another content"
        return None


def manifest_path(output: Path) -> Path:
    """Where the manifest of an output folder or an output file is."""
    return output / FILE_NAME if output.is_dir() else output.with_name(f"{output.name}.{FILE_NAME}")


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)


def remembered_sha256(path: Path) -> str:
    """The same, read once in this process as long as the file's size and times stay what they are."""
    stat = path.stat()
    return _sha256_at(path.absolute(), (stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns))


@cache
def _sha256_at(path: Path, marks: tuple[int, ...]) -> str:
    return sha256_of(path)


def _hash(file: Any) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    return digest.hexdigest()


def describe_output(folder: Path, path: Path, kind: Literal["product", "record"], sha256: str | None = None) -> Output:
    """Measure one finished file; ``sha256`` is its digest where that is known from writing it."""
    stat, sha256 = path.stat(), sha256 or sha256_of(path)
    relative = path.relative_to(folder).as_posix()
    return Output(path=relative, kind=kind, size=stat.st_size, sha256=sha256, mtime_ns=stat.st_mtime_ns)


def combined_digest(parts: Mapping[str, str]) -> str:
    """One SHA-256 over named digests, in the order of their names."""
    text = "".join(f"{name}\0{parts[name]}\n" for name in sorted(parts))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def products_digest(outputs: Iterable[Output]) -> str:
    """The digest of a stage's products."""
    return combined_digest({output.path: output.sha256 for output in outputs if output.kind == "product"})


def where_it_ran(seconds: float) -> dict[str, Any]:
    """Host, platform and duration: records, never part of a digest."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "seconds": round(seconds, 3),
    }
