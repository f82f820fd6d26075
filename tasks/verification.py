"""Whether the files of an entry are what its manifest says, byte for byte."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress

from deeplab.stage.manifest import Output, sha256_of
from tasks.inventory import Item


def outputs_here(item: Item) -> Sequence[Output]:
    """The files of an entry that lie here, or should."""
    return item.manifest.outputs if item.manifest and item.state != "elsewhere" and item.entry.folder.exists() else ()


def can_be_checked(item: Item) -> bool:
    """Whether an entry is finished, at rest, and here or in the mirror."""
    finished = item.manifest is not None or item.reason is not None
    return finished and not item.running and (item.state != "elsewhere" or item.mirrored is not None)


def check(item: Item, read: Callable[[int], object]) -> Iterator[str]:
    """What is wrong with an entry, a sentence a file, and what will come of it.

    A product whose content has changed behind its size and time gets a new time, so that the next run notices.

    Args:
        item: the entry; one in the mirror is judged by its sizes and ETags there.
        read: called with the size of every file that was read.
    """
    copy = item.mirrored.copy(item.entry) if item.mirrored else None
    damage = item.mirrored.damage(copy) if item.mirrored and copy else None
    comes_again = item.execution is not None or (copy is not None and damage is None)
    remedy = "it is brought here again when a run needs it"
    if not comes_again:
        remedy = f"the next run that needs it repeats {item.stage}, and no other stage"
    if item.reason and item.manifest is None:
        yield f"{item.reason}; {remedy}"
    for output in outputs_here(item):
        shortfall = output.shortfall(item.entry.folder)
        wrong = shortfall or _wrong_content(item, output)
        read(output.size)
        if wrong:
            unread = output.kind == "record" and not shortfall
            yield f"{wrong}; {'nothing runs again for a record' if unread else remedy}"
    if damage:
        brought = "it is brought there again by the next run that uses it"
        yield f"{damage}; {brought if item.state == 'finished' else remedy}"


def _wrong_content(item: Item, output: Output) -> str | None:
    path = item.entry.folder / output.path
    try:
        if sha256_of(path) == output.sha256:
            return None
        wrong = f"{output.path} has another content"
    except OSError as error:
        wrong = f"{output.path} cannot be read ({error.strerror})"
    with suppress(OSError):
        os.utime(path)
    return wrong
