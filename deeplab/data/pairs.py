"""Where the photos and masks of a data set are: a zip archive or folder in ADE20K's layout, or four folders.

ADE20K's layout is ``ANYTHING/{images,annotations}/{training,validation}/NAME.{jpg,png}``. Whatever else lies beside
(class lists, hidden files, what macOS adds to archives) is passed over.
"""

import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from deeplab.config import ConvertConfig
from deeplab.errors import DataError

# Folder of the layout -> split of the records.
_SPLITS = {"training": "train", "validation": "val"}
_MEMBER = re.compile(r"(?P<root>.*?)(?P<kind>images|annotations)/(?P<folder>training|validation)/[^/]+")
_PHOTO_SUFFIXES, _MASK_SUFFIXES = (".jpg", ".jpeg", ".png"), (".png",)
# How many names a message lists.
_SHOWN = 10

# (images or annotations, split) -> names that the source's ``read`` understands.
Members = Mapping[tuple[str, str], list[str]]


@dataclass(frozen=True)
class Pair:
    """A photo and its mask, by the names that their source knows them by."""

    photo: str
    mask: str

    @property
    def file_name(self) -> str:
        """The photo's base name with its extension, which is what a record is called."""
        return PurePosixPath(self.photo).name


@dataclass(frozen=True)
class Source:
    """An opened source of pairs.

    Attributes:
        shown: what messages call it.
        members: the photos and masks of each split.
        read: returns the bytes of a member; may be called from several threads.
    """

    shown: str
    members: Members
    read: Callable[[str], bytes]

    def describe(self, member: str) -> str:
        """What messages call a member."""
        return f"{self.shown}: {member}"


@contextmanager
def open_source(config: ConvertConfig) -> Iterator[Source]:
    """Open what ``--source``, or else the four folder flags, point to.

    Raises:
        DataError: if it is missing, damaged or not in the layout.
    """
    if config.source is None:
        yield _four_folders(config)
        return
    place = _lone_zip(Path(config.source))
    if place.is_dir():
        names = (entry.relative_to(place).as_posix() for entry in place.rglob("*") if entry.is_file())
        yield Source(str(place), _by_layout(names, str(place)), lambda name: (place / name).read_bytes())
        return
    with _opened_zip(place) as archive:
        names = (entry.filename for entry in archive.infolist() if not entry.is_dir())
        yield Source(str(place), _by_layout(names, str(place)), lambda name: _read_member(archive, name, place))


def folder_flags(config: ConvertConfig) -> dict[str, str]:
    """The four folder flags and their values."""
    names = ("train_image_folder", "train_image_label_folder", "val_image_folder", "val_image_label_folder")
    return {name: getattr(config, name) for name in names}


def find_pairs(source: Source) -> dict[str, list[Pair]]:
    """The pairs of each split that has any, sorted by name.

    Raises:
        DataError: if there are none at all, or listing every photo without mask and mask without photo.
    """
    splits, lonely = {}, []
    for split in _SPLITS.values():
        photos = _by_stem(source, source.members.get(("images", split), []))
        masks = _by_stem(source, source.members.get(("annotations", split), []))
        lonely += [f"{photos[stem]} has no mask" for stem in sorted(photos.keys() - masks.keys())]
        lonely += [f"{masks[stem]} has no photo" for stem in sorted(masks.keys() - photos.keys())]
        splits[split] = [Pair(photos[stem], masks[stem]) for stem in sorted(photos.keys() & masks.keys())]
    if lonely:
        more = f"; and {len(lonely) - _SHOWN} more" if len(lonely) > _SHOWN else ""
        raise DataError(
            f"{source.shown}: {len(lonely)} files without partner: {'; '.join(lonely[:_SHOWN])}{more}. "
            "Add the partners (same name, mask .png) or remove the files"
        )
    if not any(splits.values()):
        raise DataError(
            f"{source.shown}: no photos found; expected images/training/NAME.jpg with annotations/training/NAME.png, "
            "and the same for validation"
        )
    return {split: pairs for split, pairs in splits.items() if pairs}


def _lone_zip(place: Path) -> Path:
    """The one zip in a folder that holds nothing else (what fetch leaves), or the place itself."""
    if not place.is_dir():
        return place
    entries = [entry for entry in place.iterdir() if not entry.name.startswith(".") and entry.name != "manifest.json"]
    return entries[0] if len(entries) == 1 and entries[0].suffix.lower() == ".zip" else place


def _four_folders(config: ConvertConfig) -> Source:
    flags = folder_flags(config)
    missing = [f"--{name}={value}" for name, value in flags.items() if not Path(value).is_dir()]
    if missing:
        raise DataError(
            f"no such folder: {', '.join(missing)}. Pass --source=ARCHIVE.zip (or a folder in the data set's layout), "
            "or all four folder flags"
        )
    slots = [("images", "train"), ("annotations", "train"), ("images", "val"), ("annotations", "val")]
    members = {
        slot: [entry.as_posix() for entry in Path(folder).iterdir() if _wanted(entry.as_posix(), slot[0])]
        for slot, folder in zip(slots, flags.values(), strict=True)
    }
    return Source("the four folders", members, lambda name: Path(name).read_bytes())


def _by_layout(names: Iterable[str], shown: str) -> Members:
    members: dict[tuple[str, str], list[str]] = {}
    roots = set()
    for name in names:
        match = _MEMBER.fullmatch(name)
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)
        if match is None or hidden or not _wanted(name, match["kind"]):
            continue
        roots.add(match["root"] or "./")
        members.setdefault((match["kind"], _SPLITS[match["folder"]]), []).append(name)
    if len(roots) > 1:
        raise DataError(f"{shown}: holds several data sets ({', '.join(sorted(roots))}); leave one in it")
    return members


def _wanted(name: str, kind: str) -> bool:
    path = PurePosixPath(name)
    suffixes = _PHOTO_SUFFIXES if kind == "images" else _MASK_SUFFIXES
    return path.suffix.lower() in suffixes and not path.name.startswith(".")


def _by_stem(source: Source, names: list[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in sorted(names):
        stem = PurePosixPath(name).stem
        if stem in found:
            raise DataError(f"{source.shown}: {found[stem]} and {name} share a name; remove one")
        found[stem] = name
    return found


@contextmanager
def _opened_zip(place: Path) -> Iterator[zipfile.ZipFile]:
    try:
        archive = zipfile.ZipFile(place)
    except FileNotFoundError:
        raise DataError(f"--source={place}: no such file or folder") from None
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError) as error:
        raise DataError(f"{place}: not a zip archive, or cut short ({error}); fetch it again") from None
    with archive:
        yield archive


def _read_member(archive: zipfile.ZipFile, name: str, place: Path) -> bytes:
    try:
        return archive.read(name)
    except RuntimeError as error:
        raise DataError(f"{place}: {name} cannot be read ({error}); unpack the archive and pass the folder") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise DataError(f"{place}: {name} is damaged ({error}); fetch the archive again") from None
