"""``dataset.yaml``: a data set of one's own, described without touching code. Ours are described the same way.

name: camvid
classes: [sky, building, road]          # or name: [red, green, blue]
ignore_label: 11
splits:
  train: {images: images/train/*, masks: labels/train/*}
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from deeplab.data.colours import pascal_colours
from deeplab.data.labels import Colour, MaskReading, colour_map, label_map
from deeplab.data.layout import MASK_SUFFIXES, PHOTO_SUFFIXES, Layout, MaskFiles, PathPattern, SplitFiles
from deeplab.errors import ConfigError

_Byte = Annotated[int, Field(ge=0, le=255)]
# What may stand in the name of a file.
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
_Colour = tuple[_Byte, _Byte, _Byte]


def _listed(value: Any) -> Any:
    return value if isinstance(value, list) else [value]


def _mask_entry(value: Any) -> Any:
    return {"files": value} if isinstance(value, str) else value


def _named(value: Any) -> Any:
    """Classes written as a list of names, or as name: colour."""
    if isinstance(value, list):
        return [{"name": name} if isinstance(name, (str, int, float)) else name for name in value]
    if isinstance(value, dict):
        return [{"name": name, "colour": colour} for name, colour in value.items()]
    return value


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", coerce_numbers_to_str=True)


class ClassEntry(_Entry):
    """A class: its name, and its colour where one is given."""

    name: str = Field(min_length=1)
    colour: _Colour | None = None


class MaskEntry(_Entry):
    """Masks of one kind, with a value map of their own where they have one."""

    files: str
    values: dict[_Byte, _Byte] | None = None


class SplitEntry(_Entry):
    """Where the photos and masks of a split are."""

    images: Annotated[tuple[str, ...], BeforeValidator(_listed)]
    masks: Annotated[tuple[Annotated[MaskEntry, BeforeValidator(_mask_entry)], ...], BeforeValidator(_listed)]
    list: str | None = None
    on_request: bool = False

    @model_validator(mode="after")
    def _check(self) -> "SplitEntry":
        for text in (*self.images, *(entry.files for entry in self.masks)):
            if text.rpartition("/")[2].count("*") != 1:
                raise ValueError(f"{text!r} needs one * in its last part, such as images/train/*")
        stars = {text.count("*") for text in (*self.images, *(entry.files for entry in self.masks))}
        if len(stars) > 1:
            raise ValueError("images and masks must have equally many *, since what they stand for must agree")
        return self


class DatasetFile(_Entry):
    """The content of a ``dataset.yaml``.

    Attributes:
        name: what the records and models call the data set; default: the file's.
        classes: the names, or name: [red, green, blue], in the order of the labels.
        ignore_label: the label of pixels that do not count; may be one of the classes.
        ignore_colour: what it is painted with.
        values: mask value -> label, for masks that number classes otherwise.
        label_offset: what is added to a mask value that ``values`` does not name.
        colour_masks: masks show the classes' colours instead of their numbers.
        ignore_colours: with colour_masks: further colours that are ignored.
        bare_names: records are called what ``*`` stands for, instead of the photo's file name.
        source: zip, tar or folder, from this file's folder on, when no --source is given.
        splits: split -> where its photos and masks are.
    """

    name: str | None = Field(None, pattern=_NAME)
    classes: Annotated[tuple[ClassEntry, ...], BeforeValidator(_named), Field(min_length=1, max_length=256)]
    ignore_label: _Byte = 255
    ignore_colour: _Colour = (0, 0, 0)
    values: dict[_Byte, _Byte] = {}
    label_offset: Annotated[int, Field(ge=-255, le=255)] = 0
    colour_masks: bool = False
    ignore_colours: tuple[_Colour, ...] = ()
    bare_names: bool = False
    source: str = "."
    splits: Annotated[dict[Annotated[str, Field(pattern=_NAME)], SplitEntry], Field(min_length=1)]

    @model_validator(mode="after")
    def _check(self) -> "DatasetFile":
        names = [entry.name for entry in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"class {next(name for name in names if names.count(name) > 1)!r} is there twice")
        maps = [self.values, *(entry.values or {} for split in self.splits.values() for entry in split.masks)]
        legal = {*range(len(names)), self.ignore_label}
        wrong = sorted({label for values in maps for label in values.values()} - legal)
        if wrong:
            raise ValueError(
                f"values: label {wrong[0]} is neither a class (0..{len(names) - 1}) nor the ignore label "
                f"({self.ignore_label})"
            )
        colours = [entry.colour for entry in self.classes]
        if self.colour_masks and (None in colours or len(set(colours)) < len(colours)):
            raise ValueError("colour_masks needs a different colour for every class, written name: [red, green, blue]")
        return self

    def colours(self) -> tuple[Colour, ...]:
        """The colour of each class: as given, else PASCAL's of its number."""
        palette = pascal_colours(len(self.classes)).tolist()
        return tuple(
            entry.colour or (red, green, blue) for entry, (red, green, blue) in zip(self.classes, palette, strict=True)
        )

    def layout(self, name: str, source: str | None) -> Layout:
        """Where the files are, and what the masks' values stand for."""
        splits = {split: self._split(entry, name) for split, entry in self.splits.items()}
        return Layout(splits, self.bare_names, source)

    def _split(self, entry: SplitEntry, name: str) -> SplitFiles:
        return SplitFiles(
            tuple(PathPattern(text, PHOTO_SUFFIXES) for text in entry.images),
            tuple(
                MaskFiles(PathPattern(masks.files, MASK_SUFFIXES), self._reading(masks, name)) for masks in entry.masks
            ),
            entry.list,
            entry.on_request,
        )

    def _reading(self, masks: MaskEntry, name: str) -> MaskReading:
        if self.colour_masks:
            return colour_map(name, self.colours(), (self.ignore_colour, *self.ignore_colours), self.ignore_label)
        values = self.values if masks.values is None else masks.values
        return label_map(name, len(self.classes), self.ignore_label, values, self.label_offset)


def parse_dataset(content: Any, shown: str) -> DatasetFile:
    """Check what a file holds.

    Raises:
        ConfigError: naming the file, the entry and what is wrong with it.
    """
    if not isinstance(content, Mapping):
        raise ConfigError(
            f"{shown}: expected entries such as name, classes and splits; docs/own-data.md has an example"
        )
    try:
        return DatasetFile.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{shown}: {'; '.join(_sentence(item) for item in error.errors())}") from None


def read_dataset(path: Path) -> DatasetFile:
    """Read a ``dataset.yaml``.

    Raises:
        ConfigError: if it cannot be read, or says something that it may not.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--dataset={path}: {' '.join(str(error).split())}") from None
    return parse_dataset(content, f"--dataset={path}")


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        message = "unknown entry; docs/own-data.md lists them"
    if item["type"] == "missing":
        message = "is missing"
    return f"{where}: {message}" if where else message
