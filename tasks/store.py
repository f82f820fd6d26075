"""The store: what stages made, under a key that stands for exactly how it was made.

``STORE/STAGE/KEY/`` is the output of a stage. Beside it lie ``KEY.json`` (what the key stands for), ``KEY.log``
(every line the stage printed, once and in order) and ``KEY.lock`` (held while a flow works on the entry).
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.errors import DataError
from deeplab.stage.manifest import Manifest, manifest_path
from tasks.errors import StoreError

# Hexadecimal digits of a key: 128 bits, and still short enough for a folder name.
_KEY_LENGTH = 32


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
    def _manifest_file(self) -> Path:
        return self.folder / "manifest.json" if self.file_name is None else manifest_path(self.output)

    def examine(self, *, deep: bool = False) -> tuple[Manifest | None, str | None]:
        """The manifest, if the entry is finished and whole, else the reason why not.

        Args:
            deep: compare the files' contents (sha256), not only sizes and modification times.
        """
        if not self._manifest_file.exists():
            unfinished = self.folder.is_dir() and any(self.folder.iterdir())
            return None, "it is unfinished" if unfinished else "it was not made yet"
        try:
            manifest = Manifest.read(self._manifest_file)
        except DataError:
            return None, f"{self._manifest_file.name} is damaged"
        damage = manifest.damage(self.folder, deep=deep)
        return (None, damage) if damage else (manifest, None)

    def manifest(self) -> Manifest | None:
        """The manifest while the entry is finished and all its files are whole."""
        return self.examine()[0]

    def invalidate(self) -> None:
        """Forget that the entry is finished, so that its stage runs again."""
        self._manifest_file.unlink(missing_ok=True)

    def prepare(self) -> None:
        """Make the place ready for its stage: note what the key stands for, drop an unreadable manifest."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        if self.file_name is not None:
            self.folder.mkdir(exist_ok=True)
        if self._manifest_file.exists():
            try:
                Manifest.read(self._manifest_file)
            except DataError:
                self.invalidate()
        note = self.folder.with_name(f"{self.folder.name}.json")
        temporary = note.with_name(f".tmp-{note.name}")
        temporary.write_text(json.dumps(self.identity.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        temporary.replace(note)

    @contextmanager
    def held(self, waiting: Any) -> Iterator[None]:
        """Keep other flows off this entry.

        Args:
            waiting: called without arguments when another flow holds the entry, before waiting for it.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder.with_name(f"{self.folder.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            waiting()
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


@dataclass(frozen=True)
class Store:
    """A folder of entries.

    Attributes:
        root: the folder; made when the first entry is.
    """

    root: Path

    @classmethod
    def open(cls, place: str) -> "Store":
        """The store at a path or a ``file://`` URL.

        Raises:
            StoreError: for any other URL, or a path that cannot be a folder.
        """
        scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", place)
        if scheme and scheme[1] != "file":
            raise StoreError(
                f"--store={place}: this version keeps its store on this machine's disk; "
                f"name a folder, not a {scheme[1]}:// URL"
            )
        root = Path(place.removeprefix("file://")).expanduser()
        if not place or (root.exists() and not root.is_dir()):
            raise StoreError(f"--store={place}: not a folder; name one, it is made when missing")
        try:
            root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"--store={place}: cannot be made ({error.strerror}); name another folder") from None
        return cls(root)

    def entry(self, identity: Identity, file_name: str | None = None) -> Entry:
        """The place of an output, made or not."""
        return Entry(self.root / identity.stage / identity.key, identity, file_name)

    def finished(self, stage: str, file_name: str | None = None) -> Iterator[tuple[Entry, Manifest]]:
        """All whole entries of a stage."""
        for note in sorted((self.root / stage).glob("*.json")):
            try:
                identity = Identity.model_validate_json(note.read_text(encoding="utf-8"))
            except (OSError, UnicodeDecodeError, ValidationError):
                continue  # not ours, or of another version: nothing can be said about that entry
            entry = self.entry(identity, file_name)
            manifest = entry.manifest() if note.stem == identity.key else None
            if manifest is not None:
                yield entry, manifest


def differs_only_in(name: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> bool:
    """Whether two sets of parameters are equal but for the field ``name``."""
    return {**here, name: None} == {**there, name: None} and here.get(name) != there.get(name)
