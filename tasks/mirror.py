"""The store's remote place: what was made here, where other machines and executions can read it.

``URL/STAGE/KEY/`` has the files, and ``URL/STAGE/KEY.mirror.json``, written last, the manifest with the files' sizes
and ETags. ``URL/uploads/DIGEST/`` has a person's own files.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.data.azure import account_name, parse, storage_options
from deeplab.stage.manifest import Manifest, sha256_of
from tasks.errors import StoreError
from tasks.store import Entry, Identity, key_in

_AZURE = ("az", "abfs", "abfss", "azure")
# Protocols whose addresses Valohai reads as they are.
_READABLE = ("s3", "gs")
_UPLOADS = "uploads"
# How drivers call the time of a file's last change.
_TIMES = ("last_modified", "LastModified", "mtime", "created")


AnyModel = TypeVar("AnyModel", bound=BaseModel)


class _Note(BaseModel):
    """What tells that an entry is in the mirror, whole.

    Attributes:
        manifest: of the entry.
        etags: relative path -> mark that changes with the content, where the place has one.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    manifest: Manifest
    etags: dict[str, str | None]


@dataclass(frozen=True)
class Mirror:
    """A folder of entries at an fsspec URL.

    Attributes:
        url: such as ``az://CONTAINER/FOLDER``.
    """

    url: str

    @cached_property
    def _files(self) -> Any:
        azure = self._protocol in _AZURE
        try:
            return fsspec.filesystem("az" if azure else self._protocol, **(storage_options(self.url) if azure else {}))
        except (ImportError, ValueError) as error:
            raise StoreError(f"--store={self.url}: {error}; name a folder or an az:// URL") from None

    @property
    def _protocol(self) -> str:
        return self.url.partition("://")[0].lower()

    @property
    def _root(self) -> str:
        found = parse(self.url) if self._protocol in _AZURE else None
        return (found.path if found else self.url.partition("://")[2]).strip("/")

    def check(self) -> None:
        """Refuse a place that cannot be reached, before any work.

        Raises:
            StoreError: with what is wrong.
        """
        container = self._root.partition("/")[0]
        if not container:
            raise StoreError(f"--store={self.url}: names no container; write {self._protocol}://CONTAINER/FOLDER")
        with self._explained():
            if not self._files.exists(container):
                raise StoreError(f"--store={self.url}: there is no container {container}; make it first")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Whatever a driver raises becomes one line."""
        try:
            yield
        except (StoreError, KeyboardInterrupt):
            raise
        except Exception as error:  # the drivers' own errors share no root
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise StoreError(f"--store={self.url}: {reason}; check the address and the credentials") from None

    def _path(self, *parts: str) -> str:
        return "/".join((self._root, *parts))

    def address(self, path: str) -> str:
        """The address under which an execution reads a file of the mirror.

        Raises:
            StoreError: where there is none.
        """
        if self._protocol in _AZURE:
            return f"azure://{account_name(self.url)}/{path}"
        if self._protocol in _READABLE:
            return f"{self._protocol}://{path}"
        raise StoreError(
            f"--store={self.url}: Valohai cannot read {self._protocol}:// addresses; use az://, s3:// or gs://"
        )

    def find(self, entry: Entry) -> "MirrorCopy | None":
        """What the mirror has of an entry, whether it is whole or not."""
        with self._explained():
            try:
                text = self._files.cat_file(self._note_path(entry))
            except FileNotFoundError:
                return None
        note = _parsed(_Note, text)
        return MirrorCopy(self, entry, note.manifest, note.etags) if note else None

    def _note_path(self, entry: Entry) -> str:
        return self._path(entry.identity.stage, f"{entry.identity.key}.mirror.json")

    def push(self, entry: Entry, manifest: Manifest) -> "MirrorCopy":
        """Bring a finished entry there: its files, its log, and last the note that it is whole."""
        stage, key = entry.identity.stage, entry.identity.key
        with self._explained():
            for output in manifest.outputs:
                self._put(entry.folder / output.path, self._path(stage, key, output.path))
            for path in (entry.note, entry.log):
                if path.exists():
                    self._put(path, self._path(stage, path.name))
            found = self.listing(entry)
            etags = {output.path: _etag(found[output.path]) for output in manifest.outputs}
            note = _Note(manifest=manifest, etags=etags)
            self._files.pipe_file(self._note_path(entry), note.model_dump_json(indent=1).encode())
        return MirrorCopy(self, entry, manifest, etags)

    def note_use(self, entry: Entry) -> None:
        """Give the identity of an entry a new time."""
        with self._explained():
            self._files.pipe_file(self._path(entry.identity.stage, f"{entry.identity.key}.json"), entry.note_content())

    def _put(self, path: Path, target: str) -> None:
        # adlfs keeps what is there unless told otherwise; other drivers do not know the word.
        options = {"overwrite": True} if self._protocol in _AZURE else {}
        self._files.put_file(str(path), target, **options)

    def listing(self, entry: Entry) -> dict[str, Mapping[str, Any]]:
        """Relative path -> what the place tells of a file of an entry."""
        folder = self._path(entry.identity.stage, entry.identity.key)
        self._files.invalidate_cache()
        with self._explained():
            found = self._files.find(folder, detail=True)
        return {name.strip("/").removeprefix(f"{folder}/"): details for name, details in found.items()}

    def survey(self) -> list["Mirrored"]:
        """All entries, whole or not, from one look at the place."""
        self._files.invalidate_cache()
        with self._explained():
            entries: dict[tuple[str, str], dict[str, Mapping[str, Any]]] = {}
            for path, details in self._files.find(self._root, detail=True).items():
                stage, _, name = path.strip("/").removeprefix(f"{self._root}/").partition("/")
                key = key_in(name.partition("/")[0].partition(".")[0])
                if key and stage != _UPLOADS:
                    entries.setdefault((stage, key), {})[name] = details
            notes = [
                self._path(stage, name)
                for (stage, key), files in entries.items()
                for name in (f"{key}.json", f"{key}.mirror.json")
                if name in files
            ]
            texts = self._files.cat(notes, on_error="omit") if notes else {}
        return [
            Mirrored(
                *(self, stage, key, files),
                identity=_parsed(Identity, texts.get(self._path(stage, f"{key}.json"))),
                note=_parsed(_Note, texts.get(self._path(stage, f"{key}.mirror.json"))),
            )
            for (stage, key), files in entries.items()
        ]

    def remove(self, found: "Mirrored") -> None:
        """Remove an entry; first the note that says that it is whole, so that what is cut short never counts."""
        note = f"{found.key}.mirror.json"
        others = [self._path(found.stage, name) for name in found.files if name != note]
        with self._explained():
            if note in found.files:
                self._files.rm_file(self._path(found.stage, note))
            if others:
                self._files.rm(others)

    def get(self, entry: Entry, path: str, target: Path) -> None:
        """Bring one file of an entry here."""
        target.parent.mkdir(parents=True, exist_ok=True)
        with self._explained():
            self._files.get_file(self._path(entry.identity.stage, entry.identity.key, path), str(target))

    def upload(self, path: Path, digest: str) -> str:
        """Bring a person's file there, unless it is there already; its address."""
        target = self._path(_UPLOADS, digest[:32], path.name)
        with self._explained():
            self._files.invalidate_cache()
            if not self._files.exists(target) or self._files.size(target) != path.stat().st_size:
                self._put(path, target)
        return self.address(target)


@dataclass(frozen=True)
class MirrorCopy:
    """An entry in the mirror.

    Attributes:
        mirror: where.
        entry: what it is a copy of.
        manifest: its content.
        etags: relative path -> mark that changes with the content.
    """

    mirror: Mirror
    entry: Entry
    manifest: Manifest
    etags: Mapping[str, str | None]

    @property
    def place(self) -> str:
        """How a person calls where it lies."""
        name = f"/{self.entry.file_name}" if self.entry.file_name else ""
        return f"{self.mirror.url.rstrip('/')}/{self.entry.identity.stage}/{self.entry.identity.key}{name}"

    def touch(self) -> None:
        """Note that it was used just now: its identity is written anew, and never changes."""
        with suppress(StoreError):  # who may only read there uses it all the same
            self.mirror.note_use(self.entry)

    def damage(self, found: Mapping[str, Mapping[str, Any]] | None = None) -> str | None:
        """Why it no longer is what the manifest says, or None; compares sizes and ETags.

        Args:
            found: relative path -> what the place tells of a file; asked for where it is not known.
        """
        found = self.mirror.listing(self.entry) if found is None else found
        for output in self.manifest.outputs:
            details = found.get(output.path)
            if details is None:
                return f"{output.path} is missing in {self.place}"
            if details.get("size") != output.size:
                return f"{output.path} in {self.place} has {details.get('size')} bytes instead of {output.size}"
            if _etag(details) != self.etags.get(output.path):
                return f"{output.path} in {self.place} was changed"
        return None

    def bring(self, entry: Entry) -> None:
        """Make the entry whole here."""
        with entry.replaced() as folder:
            for output in self.manifest.outputs:
                target = folder / output.path
                self.mirror.get(entry, output.path, target)
                if sha256_of(target) != output.sha256:
                    raise StoreError(f"{self.place}: {output.path} has another content; delete it there and run again")
            entry.seal(folder, self.manifest)

    def small_file(self, name: str) -> Path | None:
        """Nothing of it is here."""
        return None

    def addresses(self) -> list[str]:
        """The files that later stages read, as addresses for an execution."""
        stage, key = self.entry.identity.stage, self.entry.identity.key
        return [self.mirror.address(f"{self.mirror._root}/{stage}/{key}/{name}") for name in handed_on(self.manifest)]


@dataclass(frozen=True)
class Mirrored:
    """What the mirror has under a key, whole or not.

    Attributes:
        mirror: where.
        stage: of the entry.
        key: of the entry.
        files: path below the stage's folder -> what the place tells of the file.
        identity: what the key stands for, if that can be read.
        note: what tells that it is whole.
    """

    mirror: Mirror
    stage: str
    key: str
    files: Mapping[str, Mapping[str, Any]]
    identity: Identity | None
    note: _Note | None

    @property
    def size(self) -> int:
        """Bytes, notes and log included."""
        return sum(int(details.get("size") or 0) for details in self.files.values())

    @property
    def used(self) -> float:
        """When it was last used or written, in seconds since 1970."""
        return max(_modified(details) for details in self.files.values())

    def copy(self, entry: Entry) -> MirrorCopy | None:
        """The entry there, if it was brought there to its end."""
        return MirrorCopy(self.mirror, entry, self.note.manifest, self.note.etags) if self.note else None

    def damage(self, copy: MirrorCopy) -> str | None:
        """Why the copy no longer is what the manifest says, or None."""
        return copy.damage({name.removeprefix(f"{self.key}/"): details for name, details in self.files.items()})


def _parsed(model: type[AnyModel], text: bytes | None) -> AnyModel | None:
    """What a note says; None where there is none, or one of another version."""
    try:
        return model.model_validate_json(text) if text is not None else None
    except ValidationError:
        return None


def _modified(details: Mapping[str, Any]) -> float:
    """When a file was last changed; now, where the place does not tell."""
    value = next((details[name] for name in _TIMES if isinstance(details.get(name), datetime | float)), time.time())
    return value.timestamp() if isinstance(value, datetime) else value


def handed_on(manifest: Manifest) -> list[str]:
    """The products of a stage that later stages read: the archive of them where there is one, else all."""
    products = [output.path for output in manifest.outputs if output.kind == "product"]
    archives = [path for path in products if path.endswith(".tar.gz")]
    return archives or products


def _etag(details: Mapping[str, Any]) -> str | None:
    value = details.get("etag") or details.get("ETag")
    return None if value is None else str(value).strip('"')
