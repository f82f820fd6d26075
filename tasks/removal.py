"""Which entries of a store nobody needs, and how they are removed while flows use the store."""

import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.errors import EntryInUse
from tasks.inventory import Inventory, Item, Leftover, stage_order
from tasks.mirror import Mirrored
from tasks.store import last_used, lock_of, locks_of, parts, temporary_of

_DAY = 86400.0
# Days that a finished entry is spared for where only a number to keep is given: a flow may be about to read it.
_SPARED = 1.0


@dataclass(frozen=True)
class Rules:
    """What is not needed.

    Attributes:
        older_than: days after which what is unfinished, broken or left over goes.
        unused_for: days after which what is finished goes; None: never, unless ``keep_last`` says so.
        keep_last: how many finished entries of a stage stay in any case, those used last.
        stage: the only stage that is looked at; None: all.
        mirror: whether what only the mirror has is looked at too.
    """

    older_than: float = 14.0
    unused_for: float | None = None
    keep_last: int | None = None
    stage: str | None = None
    mirror: bool = False

    @property
    def idle(self) -> float | None:
        """Days after which what is finished goes; None: never."""
        return _SPARED if self.unused_for is None and self.keep_last is not None else self.unused_for


@dataclass(frozen=True)
class Removal:
    """Something that goes.

    Attributes:
        what: an entry, leftovers, or what the mirror has of an entry that was not brought there to its end.
        reason: why.
    """

    what: Item | Leftover | Mirrored
    reason: str


def choose(inventory: Inventory, rules: Rules, now: float) -> list[Removal]:
    """What goes, the results before what they were made of.

    An entry counts as used whenever something made of it is. What stays keeps all that it was made of; so does what
    somebody works on, and what is unfinished and may go on. With ``stage``, only these two do: the others were made.

    Args:
        inventory: what there is.
        rules: what is not needed.
        now: the time, in seconds since 1970.
    """
    used = _uses(inventory)
    spared = _last_of_each_stage(inventory, used, rules.keep_last)
    looked_at = [item for item in inventory.items if rules.stage in (None, item.stage)]
    chosen: dict[Item, str] = {}
    for item in looked_at:
        days = (now - used[item]) / _DAY
        finished = item.state in ("finished", "elsewhere")
        limit = rules.idle if finished else rules.older_than
        if not item.running and item not in spared and limit is not None and days > limit:
            chosen[item] = f"{'not used' if finished else item.state} for {days:.0f} days"
    needing = {item for item in inventory.items if item.running or item.state == "unfinished"} | set(looked_at)
    for item in inventory.ancestors(needing - set(chosen)):
        chosen.pop(item, None)
    ordered = sorted(chosen, key=lambda item: stage_order(item.stage), reverse=True)
    there = [item for item in ordered if rules.mirror or parts(item.entry.folder)]
    return [*(Removal(item, chosen[item]) for item in there), *_left_over(inventory, rules, now)]


def _uses(inventory: Inventory) -> dict[Item, float]:
    """When each entry, or something made of it, was last used."""
    used = {item: item.used for item in inventory.items}
    for item in inventory.items:
        for source in inventory.ancestors([item]):
            used[source] = max(used[source], item.used)
    return used


def _last_of_each_stage(inventory: Inventory, used: dict[Item, float], count: int | None) -> set[Item]:
    stages: dict[str, list[Item]] = {}
    for item in sorted(inventory.items, key=lambda item: -used[item]):
        if item.state in ("finished", "elsewhere"):
            stages.setdefault(item.stage, []).append(item)
    return {item for items in stages.values() for item in items[: count or 0]}


def _left_over(inventory: Inventory, rules: Rules, now: float) -> Iterable[Removal]:
    oldest = now - rules.older_than * _DAY
    for left in inventory.leftovers:
        if rules.stage in (None, left.folder.parent.name) and (left.temporary or left.used < oldest):
            yield Removal(left, "left over")
    for stray in inventory.strays if rules.mirror else ():
        if rules.stage in (None, stray.stage) and stray.used < oldest:
            yield Removal(stray, "left over in the mirror")


def size_of(removal: Removal, mirror: bool) -> int:
    """Bytes that a removal frees; with ``mirror`` those of an entry's copy there, too."""
    what = removal.what
    return what.size + (what.mirrored.size if mirror and isinstance(what, Item) and what.mirrored else 0)


def remove(removal: Removal, *, mirror: bool) -> None:
    """Remove it, unless it was used since it was chosen.

    Args:
        removal: what.
        mirror: whether what the mirror has of an entry goes too.

    Raises:
        EntryInUse: if somebody works on it, or has used it.
        StoreError: if the mirror does not let it go.
    """
    what = removal.what
    if isinstance(what, Mirrored):
        what.mirror.remove(what)
    elif isinstance(what, Leftover):
        with _owned(what.folder):
            noted = what.folder.with_name(f"{what.folder.name}.json").exists()
            _delete(path for path in what.paths if what.temporary or not noted)
    else:
        with _owned(what.entry.folder):
            if last_used(what.entry.folder) > what.used:
                raise EntryInUse("it was used just now")
            if mirror and what.mirrored:
                what.mirrored.mirror.remove(what.mirrored)
            _bury(what.entry.folder)


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold an entry so that nobody can begin to work on it; its lock goes with the last of it.

    Raises:
        EntryInUse: if somebody does.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as locks:
        for path in locks_of(folder):
            try:
                locks.enter_context(FileLock(path, timeout=0))
            except Timeout:
                raise EntryInUse("somebody works on it") from None
        yield
        if parts(folder) == [lock_of(folder)]:
            lock_of(folder).unlink()


def _bury(folder: Path) -> None:
    """Remove the entry at ``STORE/STAGE/KEY`` with all that lies beside it.

    In one step its folder gets a name that stands for nothing: what a kill leaves is not half an entry, but leftovers.
    """
    grave = temporary_of(folder)
    _delete([grave])
    if folder.exists():
        folder.rename(grave)
    beside = [path for path in parts(folder) if path != lock_of(folder)]
    _delete([*beside, *parts(folder, temporary=True)])


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
