"""The place a stage writes to: locked while it works, resumable until the manifest seals it.

An unfinished place carries ``.unfinished.json`` with the stage's parameters and input digests. The same command
goes on there; another command is refused with the names of the flags that differ.
"""

import json
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout

from deeplab.config.base import Flags
from deeplab.errors import OutputError
from deeplab.stage.manifest import (
    Manifest,
    Output,
    describe_output,
    manifest_path,
    products_digest,
    where_it_ran,
)

# In a folder of unfinished work: what made it.
UNFINISHED = ".unfinished.json"
# Seconds to wait for another process to leave the place: a stopped training writes a checkpoint first.
_LOCK_TIMEOUT = 120.0


class _Place:
    """What an output folder and an output file have in common."""

    def __init__(self, stage: str, code_version: int, config: Flags, inputs: Mapping[str, str]) -> None:
        self._stage, self._code_version = stage, code_version
        self._parameters = json.loads(json.dumps(config.key_parameters()))
        self._inputs = dict(inputs)
        self._started = time.monotonic()
        self._lock: FileLock | None = None

    def _acquire(self, lock_path: Path, shown: Path) -> None:
        try:
            lock_path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(lock_path)
            self._lock.acquire(timeout=_LOCK_TIMEOUT)
        except Timeout:
            raise OutputError(f"{shown}: another process is writing there; wait for it or stop it") from None
        except OSError as error:
            raise OutputError(
                f"{shown}: cannot be written ({error.strerror or error}); choose another place, or permit writing there"
            ) from None

    def _release(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def _mark(self, path: Path) -> None:
        content = {
            "stage": self._stage,
            "code_version": self._code_version,
            "parameters": self._parameters,
            "inputs": self._inputs,
        }
        temporary = path.with_name(f".tmp-{path.name.lstrip('.')}")
        temporary.write_text(json.dumps(content, indent=1), encoding="utf-8")
        temporary.replace(path)

    def _differences(self, other: Mapping[str, Any], growing: Collection[str] = ()) -> list[str]:
        """Sentences about what another run here did differently; a growing field may only have been smaller."""
        if other.get("stage") != self._stage:
            return [f"it holds the work of stage {other.get('stage')!r}"]
        found = []
        if other.get("code_version") != self._code_version:
            found.append("it was made by another version of this stage")
        there: Mapping[str, Any] = other.get("parameters", {})
        for name in sorted({*there, *self._parameters}):
            before, now = there.get(name), self._parameters.get(name)
            if before != now and not (name in growing and before is not None and before < now):
                found.append(f"--{name} is {before} there, {now} given")
        for name in sorted({*other.get("inputs", {}), *self._inputs}):
            if other.get("inputs", {}).get(name) != self._inputs.get(name):
                found.append(f"the content of --{name} differs")
        return found

    def _manifest(
        self, outputs: Iterable[Output], digest: str | None, notes: Mapping[str, Any] | None = None
    ) -> Manifest:
        listed = tuple(sorted(outputs, key=lambda output: output.path))
        return Manifest(
            stage=self._stage,
            code_version=self._code_version,
            parameters=self._parameters,
            inputs=self._inputs,
            outputs=listed,
            digest=digest or products_digest(listed),
            notes=dict(notes or {}),
            ran=where_it_ran(time.monotonic() - self._started),
        )


class OutputFolder(_Place):
    """A stage's output folder, as a context manager.

    Args:
        path: the folder; created if missing.
        stage: the stage's name.
        code_version: raised whenever the stage's products change for equal parameters.
        config: the stage's configuration; its KEY fields identify the work.
        inputs: flag name -> digest of what it points to.
        growing: names of numeric fields that may be larger than in earlier work here (more training steps).
        adopts: file names whose presence makes foreign content acceptable (an original training folder).

    Raises:
        OutputError: if the folder cannot be written, is in use, or holds other work.
    """

    def __init__(
        self,
        path: str | Path,
        stage: str,
        code_version: int,
        config: Flags,
        inputs: Mapping[str, str],
        *,
        growing: Collection[str] = (),
        adopts: Collection[str] = (),
    ) -> None:
        super().__init__(stage, code_version, config, inputs)
        self.path = Path(path)
        self._growing, self._adopts = growing, adopts
        self.manifest: Manifest | None = None

    @property
    def finished(self) -> bool:
        """Whether this very work is already there, whole."""
        return self.manifest is not None

    def __enter__(self) -> "OutputFolder":
        if self.path.exists() and not self.path.is_dir():
            raise OutputError(f"{self.path}: is a file; name a folder")
        self._acquire(self.path / ".lock", self.path)
        try:
            self._claim()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def _claim(self) -> None:
        marker, manifest_file = self.path / UNFINISHED, manifest_path(self.path)
        if manifest_file.exists():
            manifest = Manifest.read(manifest_file)
            there = manifest.model_dump(mode="json")
            self._refuse(self._differences(there, self._growing))
            if not self._differences(there) and manifest.damage(self.path) is None:
                self.manifest = manifest
                return
        elif marker.exists() and self._visible():
            self._refuse(self._differences(json.loads(marker.read_text(encoding="utf-8")), self._growing))
        else:
            self._refuse_foreign()
        try:
            self._mark(marker)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); choose another folder") from None
        manifest_file.unlink(missing_ok=True)

    def _refuse(self, differences: list[str]) -> None:
        if differences:
            raise OutputError(
                f"{self.path}: not empty, and {'; '.join(differences)}. "
                "Choose an empty folder, or repeat the earlier command to go on there"
            )

    def _visible(self) -> list[str]:
        """What is there besides hidden files; nothing, after a run that failed before its first output."""
        return sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith("."))

    def _refuse_foreign(self) -> None:
        present = self._visible()
        if present and not set(present) & set(self._adopts):
            raise OutputError(
                f"{self.path}: not empty ({', '.join(present[:3])}{', …' if len(present) > 3 else ''}) and not made "
                "by this stage; choose an empty folder"
            )

    def finish(
        self,
        products: Iterable[Path],
        records: Iterable[Path] = (),
        *,
        product_digest: str | None = None,
        digests: Mapping[Path, str] | None = None,
        notes: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Seal the folder.

        Args:
            products: deterministic outputs, inside the folder.
            records: the other outputs.
            product_digest: digest of the products where that is not one over the files' bytes.
            digests: SHA-256 of products that were digested while they were written, which saves reading them.
            notes: what the manifest says of them besides.
        """
        known = digests or {}
        outputs = [describe_output(self.path, path, "product", known.get(path)) for path in products]
        outputs += [describe_output(self.path, path, "record") for path in records]
        self.manifest = self._manifest(outputs, product_digest, notes)
        self.manifest.write(manifest_path(self.path))
        (self.path / UNFINISHED).unlink(missing_ok=True)
        return self.manifest


class OutputFile(_Place):
    """A stage's output where that is one file, with ``FILE.manifest.json`` beside it; a context manager.

    The file appears under its name only when ``finish`` renames ``temporary`` to it, and so do the files beside it.

    Raises:
        OutputError: if the place cannot be written, is in use, or has a file that this stage did not make.
    """

    def __init__(
        self, path: str | Path, stage: str, code_version: int, config: Flags, inputs: Mapping[str, str]
    ) -> None:
        super().__init__(stage, code_version, config, inputs)
        self.path = Path(path)
        self.temporary = self.path.with_name(f".tmp-{self.path.name}")
        # Tells the file from a stranger's even where the manifest is gone.
        self._marker = self.path.with_name(f".{self.path.name}.made.json")
        self._suffixes: list[str] = []
        self.manifest: Manifest | None = None

    @property
    def finished(self) -> bool:
        """Whether this very work is already there, whole."""
        return self.manifest is not None

    def __enter__(self) -> "OutputFile":
        if self.path.is_dir():
            raise OutputError(f"{self.path}: is a folder; name a file in it")
        self._acquire(self.path.with_name(f".{self.path.name}.lock"), self.path)
        try:
            self._claim()
        except BaseException:
            self._release()
            raise
        return self

    def _claim(self) -> None:
        manifest_file = manifest_path(self.path)
        manifest = Manifest.read(manifest_file) if manifest_file.exists() else None
        if self.path.exists() and self._maker(manifest) != self._stage:
            raise OutputError(f"{self.path}: exists and was not made by this stage; name another file, or move it away")
        self._mark(self._marker)
        if manifest is None or self._differences(manifest.model_dump(mode="json")):
            return
        if manifest.damage(self.path.parent) is None:
            self.manifest = manifest

    def _maker(self, manifest: Manifest | None) -> str | None:
        if manifest is not None:
            return manifest.stage
        return json.loads(self._marker.read_text(encoding="utf-8"))["stage"] if self._marker.exists() else None

    def beside(self, suffix: str) -> Path:
        """Where to write a further product; ``finish`` gives it the output's name followed by ``suffix``."""
        self._suffixes.append(suffix)
        return self._temporary_beside(suffix)

    def _temporary_beside(self, suffix: str) -> Path:
        return self.temporary.with_name(f"{self.temporary.name}{suffix}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for temporary in (self.temporary, *(self._temporary_beside(suffix) for suffix in self._suffixes)):
            temporary.unlink(missing_ok=True)
        if not self.path.exists():
            self._marker.unlink(missing_ok=True)
        self._release()

    def finish(self) -> Manifest:
        """Give the files their names, the output last so that it never stands beside another's, and seal them."""
        manifest_path(self.path).unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)
        beside = [
            self._temporary_beside(suffix).replace(self.path.with_name(f"{self.path.name}{suffix}"))
            for suffix in self._suffixes
        ]
        self.temporary.replace(self.path)
        outputs = [describe_output(self.path.parent, path, "product") for path in (self.path, *beside)]
        # The name is the user's choice: it must not change what the content is.
        digest = products_digest(
            output.model_copy(update={"path": output.path.removeprefix(self.path.name)}) for output in outputs
        )
        self.manifest = self._manifest(outputs, digest)
        self.manifest.write(manifest_path(self.path))
        return self.manifest
