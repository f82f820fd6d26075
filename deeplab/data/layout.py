"""Where the photos and masks of a data set are, as patterns of paths below some root.

``images/train/*`` with ``labels/train/*``: what ``*`` stands for must be the same for a photo and its mask. A pattern
without a file ending takes every ending that its kind of file may have. Hidden files, and what macOS adds to archives,
are passed over.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from deeplab.data.labels import MaskReading

PHOTO_SUFFIXES, MASK_SUFFIXES = (".jpg", ".jpeg", ".png"), (".png",)
# Folder -> names of the files in it.
Folders = Mapping[str, list[str]]


@dataclass(frozen=True)
class PathPattern:
    """A pattern such as ``leftImg8bit/train/*/*_leftImg8bit.png``; at most one ``*`` in the file name.

    Attributes:
        text: as it was written.
        suffixes: endings that a file may have where the pattern names none.
    """

    text: str
    suffixes: tuple[str, ...]

    @cached_property
    def _folder(self) -> re.Pattern[str]:
        stars = re.escape(self.text.rpartition("/")[0]).replace(r"\*", "([^/]+)")
        return re.compile(f"(?P<root>.*/|){stars}")

    @cached_property
    def _file(self) -> tuple[str, tuple[str, ...]]:
        """What a file's name starts with, and the endings that it may have, in lower case."""
        start, _, end = self.text.rpartition("/")[2].partition("*")
        end = end.lower()
        return start, (end,) if end.endswith(self.suffixes) else tuple(f"{end}{suffix}" for suffix in self.suffixes)

    def find(self, folders: Folders) -> Iterable[tuple[str, str, str]]:
        """Every match: its root, what the stars stand for (joined by /), and the path."""
        start, ends = self._file
        for folder, names in folders.items():
            match = self._folder.fullmatch(folder)
            if match is None:
                continue
            stars = match.groups()[1:]
            for name in names:
                end = next((end for end in ends if name.lower().endswith(end)), None)
                if end is not None and name.startswith(start) and len(name) > len(start) + len(end):
                    key = "/".join([*stars, name[len(start) : len(name) - len(end)]])
                    yield match["root"], key, f"{folder}/{name}" if folder else name


@dataclass(frozen=True)
class MaskFiles:
    """Masks of one kind: where they are and what their values stand for."""

    files: PathPattern
    reading: MaskReading


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        images: where the photos are.
        masks: where the masks are; a photo's is the first that is there.
        list: a text file, below the root, with one name a line; None: every photo belongs to the split.
        on_request: converted only when ``--splits`` names it.
    """

    images: tuple[PathPattern, ...]
    masks: tuple[MaskFiles, ...]
    list: str | None = None
    on_request: bool = False


@dataclass(frozen=True)
class Layout:
    """The splits of a data set.

    Attributes:
        splits: split -> its files.
        bare_names: records are called what ``*`` stands for, instead of the photo's file name.
        source: where the data are when no ``--source`` is given; None: nowhere in particular.
    """

    splits: Mapping[str, SplitFiles] = field(default_factory=dict)
    bare_names: bool = False
    source: str | None = None


def by_folder(names: Iterable[str]) -> dict[str, list[str]]:
    """Group paths by their folder, hidden ones left out."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, base = name.rpartition("/")
        if base and not base.startswith("."):
            folders.setdefault(folder, []).append(base)
    return {folder: bases for folder, bases in folders.items() if not _hidden(folder)}


def _hidden(folder: str) -> bool:
    return any((part.startswith(".") and part != ".") or part == "__MACOSX" for part in folder.split("/"))
