"""The store: what stages made, under a key that stands for exactly how it was made.

``STORE/STAGE/KEY/`` is the output of a stage. Beside it lie ``KEY.json`` (what the key stands for), ``KEY.log``
(every line the stage printed, once and in order) and ``KEY.lock`` (held while a flow works on the entry). The time of
``KEY.json`` is when a flow last used the entry. What is being written has ``.tmp-`` before its name.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.errors import DataError
from deeplab.stage.manifest import Manifest, describe_output
from deeplab.stage.output import UNFINISHED
from tasks.errors import StoreError

# Hexadecimal digits of a key: 128 bits, and still short enough for a folder name.
_KEY_LENGTH = 32
# What a name in the folder of a stage adds to its entry's key.
_SUFFIXES = ("", ".json", ".log", ".log.cursor", ".valohai", ".valohai.json", ".lock")
_TEMPORARY = ".tmp-"
_NAME = re.compile(
    rf"({re.escape(_TEMPORARY)})?([0-9a-f]{{{_KEY_LENGTH}}})({'|'.join(re.escape(suffix) for suffix in _SUFFIXES)})"
)

NOT_MADE = "it was not made yet"


class Identity(BaseModel):
    """What decides a stage's products: nothing else takes part in its key.

    Attributes:
        stage: the stage's name.
        code_version: raised when the stage's products change for equal parameters and inputs.
        parameters: the KEY fields of its configuration, as JSON types.
        inputs: flag name -> digest of what it points to.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    stage: str
    code_version: int
    parameters: dict[str, Any]
    inputs: dict[str, str]

    @classmethod
    def read(cls, note: Path) -> "Identity | None":
        """The content of a ``KEY.json``; None: it is not ours, or of another version, and nothing can be said."""
        try:
            return cls.model_validate_json(note.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError):
            return None

    @property
    def key(self) -> str:
        """The name of the entry: 32 hexadecimal digits."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


@dataclass(frozen=True)
class Entry:
    """The place of one stage's output in the store.

    Attributes:
        folder: ``STORE/STAGE/KEY``.
        identity: what the key stands for.
        file_name: the output's name in the folder where the output is a file; None: the folder is the output.
    """

    folder: Path
    identity: Identity
    file_name: str | None = None

    @property
    def output(self) -> Path:
        """The folder, or the file in it, that the stage writes."""
        return self.folder if self.file_name is None else self.folder / self.file_name

    @property
    def log(self) -> Path:
        """Every line that the stage printed, over all its attempts."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def note(self) -> Path:
        """What the key stands for."""
        return self.folder.with_name(f"{self.folder.name}.json")

    @property
    def manifest_file(self) -> Path:
        """Where the manifest is, once the entry is finished here."""
        return self.manifest_in(self.folder)

    def manifest_in(self, folder: Path) -> Path:
        """Where the manifest is in a folder that holds the output."""
        return folder / ("manifest.json" if self.file_name is None else f"{self.file_name}.manifest.json")

    def examine(self, *, deep: bool = False) -> tuple[Manifest | None, str | None]:
        """The manifest, if the entry is finished and whole, else the reason why not.

        Args:
            deep: compare the files' contents (sha256), not only sizes and modification times.
        """
        if not self.manifest_file.exists():
            unfinished = self.folder.is_dir() and any(self.folder.iterdir())
            return None, "it is unfinished" if unfinished else NOT_MADE
        try:
            manifest = Manifest.read(self.manifest_file)
        except DataError:
            return None, f"{self.manifest_file.name} is damaged"
        damage = manifest.damage(self.folder, deep=deep)
        return (None, damage) if damage else (manifest, None)

    def manifest(self) -> Manifest | None:
        """The manifest while the entry is finished and all its files are whole."""
        return self.examine()[0]

    def invalidate(self) -> None:
        """Forget that the entry is finished, so that its stage runs again."""
        self.manifest_file.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the place ready for its stage: note what the key stands for, drop what it could not go on from."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.file_name is not None:
            self.folder.mkdir(exist_ok=True)
        if self.manifest_file.exists():
            try:
                Manifest.read(self.manifest_file)
            except DataError:
                self.invalidate()
        # A stage refuses a folder with neither a manifest nor the mark of unfinished work; a training goes on in it.
        refused = self.file_name is None and self.identity.stage != "train"
        if refused and not self.manifest_file.exists() and not (self.folder / UNFINISHED).exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        self.write_note()

    def write_note(self) -> None:
        """Note what the key stands for."""
        self.note.parent.mkdir(parents=True, exist_ok=True)
        temporary = temporary_of(self.note)
        temporary.write_bytes(self.note_content())
        temporary.replace(self.note)

    def note_content(self) -> bytes:
        """What the key stands for, as it is noted."""
        return f"{json.dumps(self.identity.model_dump(mode='json'), indent=1)}\n".encode()

    def touch(self) -> None:
        """Note that the entry was used just now."""
        try:
            os.utime(self.note)
        except FileNotFoundError:
            self.write_note()

    @contextmanager
    def replaced(self) -> Iterator[Path]:
        """An empty folder that takes the place of the entry's when the block ends well."""
        temporary = temporary_of(self.folder)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            yield temporary
            # What an unfinished attempt left here is worth nothing beside the finished work.
            shutil.rmtree(self.folder, ignore_errors=True)
            temporary.rename(self.folder)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)
        self.write_note()

    def seal(self, folder: Path, manifest: Manifest) -> None:
        """Write the manifest of work that was done elsewhere, for the files that came here.

        Args:
            folder: with the files.
            manifest: as the stage wrote it; a record that did not come is left out.

        Raises:
            StoreError: if a product did not come.
        """
        missing = [output.path for output in manifest.outputs if not (folder / output.path).is_file()]
        lost = sorted({output.path for output in manifest.outputs if output.kind == "product"} & set(missing))
        if lost:
            raise StoreError(f"{self.identity.stage}: {', '.join(lost)} did not come; run the same command again")
        kept = (output for output in manifest.outputs if output.path not in missing)
        outputs = tuple(describe_output(folder, folder / output.path, output.kind) for output in kept)
        manifest.model_copy(update={"outputs": outputs}).write(self.manifest_in(folder))

    @contextmanager
    def held(self, waiting: Callable[[], object]) -> Iterator[None]:
        """Keep other flows off this entry.

        Args:
            waiting: called when another flow holds the entry, before waiting for it.
        """
        with held(self.folder, waiting):
            yield


@contextmanager
def held(folder: Path, waiting: Callable[[], object]) -> Iterator[None]:
    """Keep others off the entry at ``STORE/STAGE/KEY``; ``waiting`` is called before waiting for one who holds it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_of(folder))
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def lock_of(folder: Path) -> Path:
    """The lock of the entry at ``STORE/STAGE/KEY``."""
    return folder.with_name(f"{folder.name}.lock")


def locks_of(folder: Path) -> list[Path]:
    """What whoever works on the entry at ``STORE/STAGE/KEY`` holds: the flow's lock, and the stage's in the folder."""
    return [lock_of(folder), *folder.glob(".lock"), *folder.glob(".*.lock")]


def temporary_of(path: Path) -> Path:
    """Where a file or folder is written before it gets its name."""
    return path.with_name(f"{_TEMPORARY}{path.name}")


def parts(folder: Path, *, temporary: bool = False) -> list[Path]:
    """All that there is of the entry at ``STORE/STAGE/KEY``, its lock last.

    Args:
        folder: the entry's.
        temporary: what was being written instead, and has no name yet.
    """
    places = [folder.with_name(f"{folder.name}{suffix}") for suffix in _SUFFIXES]
    return [place for place in (map(temporary_of, places) if temporary else places) if place.exists()]


def last_used(folder: Path) -> float:
    """When the entry at ``STORE/STAGE/KEY`` was last used or written to, in seconds since 1970; 0: it is not there."""
    times = [0.0]
    for path in parts(folder):
        if path != lock_of(folder):
            with suppress(FileNotFoundError):
                times.append(path.stat().st_mtime)
    return max(times)


def key_in(name: str) -> str | None:
    """The key that a name in the folder of a stage belongs to; None for a name that is not of the store."""
    found = _NAME.fullmatch(name)
    return found[2] if found else None


@dataclass(frozen=True)
class Store:
    """A folder of entries.

    Attributes:
        root: the folder; made when the first entry is.
    """

    root: Path

    @classmethod
    def open(cls, place: str, *, make: bool = True) -> "Store":
        """The store at a path or a ``file://`` URL.

        Args:
            place: path or URL.
            make: make the folder when it is missing.

        Raises:
            StoreError: for a path that cannot be a folder.
        """
        root = Path(place.removeprefix("file://")).expanduser()
        if not place or (root.exists() and not root.is_dir()):
            raise StoreError(f"--store={place}: not a folder; name one, it is made when missing")
        if not make and not root.exists():
            raise StoreError(f"--store={place}: there is no such folder; name the store that a flow wrote to")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--store={place}: cannot be made ({error.strerror}); name another folder") from None
        if make and not os.access(root, os.W_OK | os.X_OK):
            raise StoreError(f"--store={place}: cannot be written to; name another folder, or mend its permissions")
        return cls(root)

    def entry(self, identity: Identity, file_name: str | None = None) -> Entry:
        """The place of an output, made or not."""
        return Entry(self.root / identity.stage / identity.key, identity, file_name)

    def entries(self, stage: str, file_name: str | None = None) -> Iterator[Entry]:
        """Everything of a stage, finished or not."""
        for note in sorted((self.root / stage).glob("*.json")):
            identity = Identity.read(note)
            if identity is not None and note.stem == identity.key:
                yield self.entry(identity, file_name)


def differs_only_in(name: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether two sets of parameters are equal but for the field ``name``."""
    return {**here, name: None} == {**there, name: None} and here.get(name) != there.get(name)
