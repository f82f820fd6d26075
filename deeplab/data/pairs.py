"""Which photo belongs to which mask, from the names alone: before anything is read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from deeplab.data.datasets import Dataset
from deeplab.data.labels import MaskReading
from deeplab.data.layout import Folders, PathPattern, SplitFiles, by_folder
from deeplab.data.sources import Source
from deeplab.errors import ConfigError, DataError

# How many names a message lists.
_SHOWN = 10


@dataclass(frozen=True, slots=True)
class Pair:
    """A photo and its mask.

    Attributes:
        photo, mask: the names that their source knows them by.
        name: what the record is called.
        reading: what the mask's values stand for.
        number: place among its split's pairs, sorted by name.
    """

    photo: str
    mask: str
    name: str
    reading: MaskReading
    number: int


@dataclass(frozen=True)
class Found:
    """What a source holds.

    Attributes:
        splits: the pairs of each split, sorted by name.
        lonely: sentences about photos without mask, and names of a list without photo.
        left_out: masks without photo.
        lists: the files that name the photos of a split.
    """

    splits: Mapping[str, list[Pair]]
    lonely: tuple[str, ...]
    left_out: tuple[str, ...]
    lists: tuple[str, ...] = ()


def find_pairs(source: Source, dataset: Dataset, wanted: Sequence[str] | None = None) -> Found:
    """The pairs of each split that is there, or of the splits that are wanted.

    Raises:
        ConfigError: for a split that the data set does not have.
        DataError: if there are no pairs, or several copies of the data set.
    """
    layout = dataset.layout
    for split in wanted or ():
        if split not in layout.splits:
            raise ConfigError(f"--splits={split}: {dataset.name} has {', '.join(layout.splits)}")
    finder = _Finder(source, layout.bare_names)
    for split, files in layout.splits.items():
        if split in wanted if wanted else not files.on_request:
            finder.add(split, files, required=bool(wanted))
    finder.check(dataset)
    return Found(finder.splits, tuple(finder.lonely), tuple(dict.fromkeys(finder.left_out)), tuple(finder.lists))


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return "; ".join(names[:_SHOWN]) + more


class _Finder:
    """Collects the pairs of one split after another."""

    def __init__(self, source: Source, bare_names: bool) -> None:
        self._source, self._bare_names = source, bare_names
        self._folders: Folders = by_folder(source.names)
        self._roots: set[str] = set()
        self.splits: dict[str, list[Pair]] = {}
        self.lonely: list[str] = []
        self.left_out: list[str] = []
        self.lists: list[str] = []

    def add(self, split: str, files: SplitFiles, *, required: bool) -> None:
        """Find the pairs of a split; one without any file is passed over unless it is required."""
        names = None if files.list is None else self._listed(files.list)
        photos = self._matches(files.images)
        masks: dict[str, tuple[str, MaskReading]] = {}
        for kind in reversed(files.masks):
            masks |= {key: (path, kind.reading) for key, path in self._matches([kind.files]).items()}
        absent = files.list is not None and names is None
        if absent or not (photos or masks):
            if required:
                what = files.list if absent else " with ".join((files.images[0].text, files.masks[0].files.text))
                raise DataError(f"{self._source.shown}: no {what}, which split {split} is made of")
            return
        keys = photos.keys() if names is None else self._named(names, photos, str(files.list))
        self.lonely += [f"{photos[key]} has no mask" for key in sorted(keys - masks.keys())]
        if names is None:
            self.left_out += [masks[key][0] for key in sorted(masks.keys() - photos.keys())]
        self.splits[split] = [
            self._pair(key, photos[key], masks[key], number) for number, key in enumerate(sorted(keys & masks.keys()))
        ]

    def _pair(self, key: str, photo: str, mask: tuple[str, MaskReading], number: int) -> Pair:
        name = (key if self._bare_names else photo).rpartition("/")[2]
        return Pair(photo, mask[0], name, mask[1], number)

    def check(self, dataset: Dataset) -> None:
        """See that there is one data set, with pairs."""
        if len(self._roots) > 1:
            raise DataError(
                f"{self._source.shown}: holds several data sets ({', '.join(sorted(self._roots))}); leave one in it"
            )
        if not any(self.splits.values()) and not self.lonely:
            first = next(iter(dataset.layout.splits.values()))
            endings = "|".join(suffix.removeprefix(".") for suffix in first.images[0].suffixes)
            raise DataError(
                f"{self._source.shown}: no photos of {dataset.name} found; expected {first.images[0].text} ({endings}) "
                f"with {first.masks[0].files.text} (png)"
            )

    def _matches(self, patterns: Iterable[PathPattern]) -> dict[str, str]:
        found: dict[str, str] = {}
        for pattern in patterns:
            for root, key, path in pattern.find(self._folders):
                if key in found and root in self._roots:
                    raise DataError(f"{self._source.shown}: {found[key]} and {path} share a name; remove one")
                self._roots.add(root)
                found[key] = path
        return found

    def _listed(self, path: str) -> list[str] | None:
        """The names in a list: the first word of each line, without folder and ending; None if there is no list."""
        places = [name for name in self._source.names if name == path or name.endswith(f"/{path}")]
        if not places:
            return None
        self.lists.append(places[0])
        lines = self._source.read(places[0]).decode("utf-8", errors="replace").splitlines()
        return [line.split()[0] for line in lines if line.strip()]

    def _named(self, names: Sequence[str], photos: Mapping[str, str], shown: str) -> set[str]:
        """The keys that a list names, as they are, by their last part, or as paths with an ending."""
        by_name = {PurePosixPath(key).name: key for key in photos} | {key: key for key in photos}
        found = set()
        for name in names:
            last = PurePosixPath(name)
            key = next((by_name[text] for text in (name, last.name, last.stem) if text in by_name), None)
            if key is None:
                self.lonely.append(f"{name}, which {shown} names, has no photo")
            else:
                found.add(key)
        return found
