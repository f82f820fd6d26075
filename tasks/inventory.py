"""What is in a store: every entry with its state, size and last use, what it was made of, and what is left over.

Nothing is changed, and no file of a stage is read: sizes tell whether an entry is whole.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from deeplab.errors import ConfigError, DataError
from deeplab.stage.manifest import Manifest
from tasks.call import OUTPUTS
from tasks.mirror import Mirror, Mirrored
from tasks.store import Entry, Identity, Store, key_in, last_used, lock_of, locks_of, parts
from tasks.valohai.copy import Note, read_note

State = Literal["finished", "elsewhere", "unfinished", "broken"]

# Fewest digits of a key that are shown.
_SHORT = 6
# In the order of a run.
STAGES = (*OUTPUTS, "report")


@dataclass(frozen=True, eq=False)
class Item:
    """An entry, wherever it lies.

    Attributes:
        entry: its place.
        state: ``finished``: it is whole here; ``elsewhere``: with an execution or in the mirror.
        reason: what is broken.
        manifest: what it consists of, once it is finished.
        size: bytes here.
        used: when it was last used or written to, in seconds since 1970.
        running: whether somebody works on it.
        execution: the one that made it, where it is known.
        mirrored: what the mirror has of it.
    """

    entry: Entry
    state: State
    reason: str | None
    manifest: Manifest | None
    size: int
    used: float
    running: bool
    execution: Note | None = None
    mirrored: Mirrored | None = None

    @property
    def identity(self) -> Identity:
        """What the key stands for."""
        return self.entry.identity

    @property
    def stage(self) -> str:
        """The stage that makes it."""
        return self.identity.stage

    @property
    def key(self) -> str:
        """Its name in the store."""
        return self.entry.folder.name


@dataclass(frozen=True)
class Leftover:
    """Files of a key that stand for nothing.

    Attributes:
        folder: ``STORE/STAGE/KEY``, which they lie beside.
        paths: the files and folders.
        size: bytes.
        used: when they were last written to, in seconds since 1970.
        temporary: whether they were being written when their writer ended, and are worth nothing.
    """

    folder: Path
    paths: tuple[Path, ...]
    size: int
    used: float
    temporary: bool


@dataclass(frozen=True)
class Inventory:
    """What is in a store.

    Attributes:
        items: the entries, in the order of the stages, those used last first.
        leftovers: what no entry needs.
        unknown: folders that nothing can be said about: ``KEY.json`` is missing, damaged or of another version.
        strays: what was not brought to the mirror to its end, and has no entry here.
    """

    items: tuple[Item, ...]
    leftovers: tuple[Leftover, ...] = ()
    unknown: tuple[Path, ...] = ()
    strays: tuple[Mirrored, ...] = ()

    @cached_property
    def _by_key(self) -> dict[str, Item]:
        return {item.key: item for item in self.items}

    @cached_property
    def _by_digest(self) -> dict[str, Item]:
        """Of several entries with the same products the one that was used last counts."""
        ordered = sorted(self.items, key=lambda item: (item.state != "broken", item.used))
        return {item.manifest.digest: item for item in ordered if item.manifest}

    def sources(self, item: Item) -> dict[str, Item | None]:
        """Input flag -> the entry that its digest comes from; None: a file of a person, or removed since."""
        return {flag: self._maker(value) for flag, value in item.identity.inputs.items()}

    def _maker(self, text: str) -> Item | None:
        """The entry behind a digest; a report has the key before it."""
        found = (self._by_key.get(word) or self._by_digest.get(word) for word in text.split())
        return next((item for item in found if item), None)

    def used_by(self, item: Item) -> list[Item]:
        """The entries that were made of this one."""
        return [other for other in self.items if item in self.sources(other).values()]

    def ancestors(self, items: Iterable[Item]) -> set[Item]:
        """All that entries were made of, and that in turn."""
        waiting, found = list(items), set[Item]()
        while waiting:
            new = {source for source in self.sources(waiting.pop()).values() if source} - found
            found |= new
            waiting.extend(new)
        return found

    def short(self, item: Item) -> str:
        """As much of a key as tells it from all others."""
        return item.key[: self._digits]

    @cached_property
    def _digits(self) -> int:
        enough = (count for count in range(_SHORT, 32) if len({key[:count] for key in self._by_key}) == len(self.items))
        return next(enough, 32)

    def find(self, word: str) -> Item:
        """The entry of a key, of the beginning of one, or of a path that has one in it.

        Raises:
            ConfigError: if there is none, or more than one.
        """
        parts = word.rstrip("/").split("/")
        start = next((key for part in reversed(parts) if (key := key_in(part))), parts[-1])
        found = [item for item in self.items if start and item.key.startswith(start)]
        if not found:
            raise ConfigError(f"{word}: no entry has a key that begins so; deeplab-store ls lists them")
        if len(found) > 1:
            names = ", ".join(f"{item.stage} {self.short(item)}" for item in found[:4])
            raise ConfigError(f"{word}: {len(found)} keys begin so ({names}); give more of it")
        return found[0]


def take(store: Store, mirror: Mirror | None) -> Inventory:
    """Look at everything in a store.

    Raises:
        StoreError: if the mirror cannot be looked at.
    """
    there = {(found.stage, found.key): found for found in mirror.survey()} if mirror else {}
    items: list[Item] = []
    leftovers: list[Leftover] = []
    unknown: list[Path] = []
    for folder in _folders(store.root):
        note, left = folder.with_name(f"{folder.name}.json"), parts(folder)
        identity = Identity.read(note)
        leftovers.extend(_leftover(folder, parts(folder, temporary=True), temporary=True))
        if identity is not None and (identity.stage, identity.key) == (folder.parent.name, folder.name):
            items.append(_item(store, identity, there.pop((identity.stage, identity.key), None)))
        elif note in left or any(folder.glob("*manifest.json")):
            unknown.append(folder)
        else:
            leftovers.extend(_leftover(folder, left, temporary=left == [lock_of(folder)]))
    for place, found in list(there.items()):
        if found.note is not None and found.identity is not None and found.identity.key == found.key:
            items.append(_item(store, found.identity, there.pop(place)))
    items.sort(key=lambda item: (*stage_order(item.stage), -item.used))
    return Inventory(tuple(items), tuple(leftovers), tuple(unknown), tuple(there.values()))


def stage_order(stage: str) -> tuple[int, str]:
    """Where a stage comes in a run."""
    return (STAGES.index(stage) if stage in STAGES else len(STAGES), stage)


def _folders(root: Path) -> list[Path]:
    """``STORE/STAGE/KEY`` of everything that lies in the folder of a stage; that folder itself need not be there."""
    stages = [stage for stage in root.iterdir() if stage.is_dir()]
    return sorted({stage / key for stage in stages for path in stage.iterdir() if (key := key_in(path.name))})


def _leftover(folder: Path, paths: list[Path], *, temporary: bool) -> Iterator[Leftover]:
    if paths:
        used = max(map(_time, paths))
        yield Leftover(folder, tuple(paths), sum(map(_size, paths)), used, temporary)


def _item(store: Store, identity: Identity, mirrored: Mirrored | None) -> Item:
    entry = store.entry(identity, OUTPUTS.get(identity.stage, ("", None))[1])
    execution = read_note(entry)
    manifest, state, reason = _examine(entry, execution, mirrored)
    return Item(
        *(entry, state, reason, manifest),
        size=sum(map(_size, parts(entry.folder))),
        used=max(last_used(entry.folder), mirrored.used if mirrored else 0.0),
        running=is_held(entry.folder),
        execution=execution,
        mirrored=mirrored,
    )


def _examine(
    entry: Entry, execution: Note | None, mirrored: Mirrored | None
) -> tuple[Manifest | None, State, str | None]:
    """What an entry consists of, how it stands, and what is broken."""
    manifest, reason = _examine_here(entry)
    if manifest is not None and reason is None:
        return manifest, "finished", None
    if execution is not None:
        return execution.manifest, "elsewhere", None
    copy = mirrored.copy(entry) if mirrored else None
    if copy is not None and mirrored is not None:
        damage = mirrored.damage(copy)
        return copy.manifest, "broken" if damage else "elsewhere", damage
    return manifest, "broken" if reason else "unfinished", reason


def _examine_here(entry: Entry) -> tuple[Manifest | None, str | None]:
    """The manifest, if it can be read, and the first file that is not as it says."""
    if not entry.manifest_file.exists():
        return None, None
    try:
        manifest = Manifest.read(entry.manifest_file)
    except DataError:
        return None, f"{entry.manifest_file.name} is damaged"
    shortfalls = (output.shortfall(entry.folder) for output in manifest.outputs)
    return manifest, next((text for text in shortfalls if text), None)


def is_held(folder: Path) -> bool:
    """Whether somebody works on the entry at ``STORE/STAGE/KEY``."""
    for path in locks_of(folder):
        if path.exists():
            try:
                with FileLock(path, timeout=0):
                    pass
            except Timeout:
                return True
            except OSError:
                pass  # another person's store: what is not ours to lock cannot be told
    return False


def _size(path: Path) -> int:
    """Bytes of a file, or of all files below a folder; what vanishes meanwhile has none."""
    if path.is_dir():
        return sum(_size(Path(folder, name)) for folder, _, names in os.walk(path) for name in names)
    with suppress(OSError):
        return path.lstat().st_size
    return 0


def _time(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0
