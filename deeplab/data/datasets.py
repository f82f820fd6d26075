"""The data sets: classes, colours, which values a mask may hold, and where the files are.

The registered ones stand in ``tables/datasets.yaml``, their names and colours in ``tables/NAME.csv``: its rows 0, 1,
... are the classes; a last row whose id is the ignore label gives ignored pixels a colour. Anyone's own is a
``dataset.yaml``, whose path then is the data set's name on every command line.
"""

import csv
import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from deeplab.config import ClassDescription
from deeplab.config.dataset_name import is_dataset_file
from deeplab.data.dataset_file import DatasetFile, parse_dataset, read_dataset
from deeplab.data.labels import Colour
from deeplab.data.layout import Layout
from deeplab.errors import ConfigError, DataError


@dataclass(frozen=True)
class Dataset:
    """A data set.

    Attributes:
        name: what ``--dataset`` calls it.
        num_classes: outputs of a network for it.
        ignore_label: mask value that counts neither in the loss nor in the metrics; ADE20K's is 0, one of its outputs.
        class_names: one name an output.
        colours: red, green and blue (0..255) of each output.
        ignore_colour: colour of the ignore label where that is not an output.
        layout: where its files are; empty where only its records are known.
    """

    name: str
    num_classes: int
    ignore_label: int
    class_names: tuple[str, ...]
    colours: tuple[Colour, ...]
    ignore_colour: Colour = (0, 0, 0)
    layout: Layout = field(default_factory=Layout)

    @property
    def label_values(self) -> frozenset[int]:
        """The values that a mask may hold."""
        return frozenset({*range(self.num_classes), self.ignore_label})

    @property
    def allowed_labels(self) -> str:
        """The legal mask values in words, for messages."""
        values = f"0..{self.num_classes - 1}"
        return values if self.ignore_label < self.num_classes else f"{values} and {self.ignore_label} (ignored)"

    @cached_property
    def _palette(self) -> npt.NDArray[np.uint8]:
        palette = np.zeros((256, 3), np.uint8)
        palette[self.ignore_label] = self.ignore_colour
        palette[: self.num_classes] = self.colours
        return palette

    def illegal_labels(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
        """Where an array of integers holds a value that no mask of this data set may hold."""
        return ((labels < 0) | (labels >= self.num_classes)) & (labels != self.ignore_label)

    def paint(self, labels: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
        """Colour a label map.

        Args:
            labels: integers [height, width]; classes or the ignore label.

        Returns:
            uint8 [height, width, 3], red, green, blue.

        Raises:
            DataError: for another shape, or a value without a colour.
        """
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"a label map holds integers [height, width]; this one is {labels.dtype} {list(labels.shape)}"
            )
        illegal = self.illegal_labels(labels)
        if illegal.any():
            raise DataError(f"label {int(labels[illegal][0])} has no colour; {self.name} has {self.allowed_labels}")
        return self._palette[labels]

    def description(self) -> dict[str, Any]:
        """What ``model.json`` says about the data set: keyword arguments of ``ModelDescription.of``."""
        classes = (
            ClassDescription(name=name, colour=colour)
            for name, colour in zip(self.class_names, self.colours, strict=True)
        )
        return {"dataset": self.name, "ignore_label": self.ignore_label, "classes": tuple(classes)}


def _of(content: DatasetFile, name: str, source: str | None) -> Dataset:
    return Dataset(
        name,
        len(content.classes),
        content.ignore_label,
        tuple(entry.name for entry in content.classes),
        content.colours(),
        content.ignore_colour,
        content.layout(name, source),
    )


def _read_table(name: str) -> list[dict[str, str]]:
    table = resources.files("deeplab.data") / "tables" / f"{name}.csv"
    return list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))


@cache
def _registered() -> Mapping[str, Any]:
    text = (resources.files("deeplab.data") / "tables" / "datasets.yaml").read_text(encoding="utf-8")
    content: dict[str, Any] = yaml.safe_load(text)
    return content


@cache
def _load(name: str) -> Dataset:
    entry, rows = _registered()[name], _read_table(name)
    colours = {int(row["id"]): [int(row[channel]) for channel in ("red", "green", "blue")] for row in rows}
    classes = [
        {"name": row["name"], "colour": colours[number]} for number, row in enumerate(rows) if int(row["id"]) == number
    ]
    ignore_colour = colours[entry.get("ignore_label", 255)]
    content = parse_dataset({**entry, "classes": classes, "ignore_colour": ignore_colour}, name)
    return _of(content, name, None)


DATASETS: tuple[str, ...] = tuple(_registered())


def get_dataset(name: str, known: Iterable[Dataset] = ()) -> Dataset:
    """The data set of that name, or the one that a file describes.

    Args:
        name: a registered name, the path of a ``dataset.yaml``, or the name of one in ``known``.
        known: data sets that a model or records describe.

    Raises:
        ConfigError: for an unknown name, listing the known ones, the nearest first, or for a bad file.
    """
    if name in DATASETS:
        return _load(name)
    for dataset in known:
        if dataset.name == name:
            return dataset
    if is_dataset_file(name):
        return _from_file(Path(name))
    near = difflib.get_close_matches(name, DATASETS, n=len(DATASETS), cutoff=0.4)
    listed = [*near, *(known for known in DATASETS if known not in near)]
    raise ConfigError(f"--dataset={name}: unknown data set; one of {', '.join(listed)}, or the path of a dataset.yaml")


def _from_file(path: Path) -> Dataset:
    content = read_dataset(path)
    name = content.name or path.stem
    if name in DATASETS:
        raise ConfigError(f"--dataset={path}: name: {name} is a registered data set's; choose another")
    return _of(content, name, str(path.parent / content.source))


def described_dataset(
    name: str, ignore_label: int | None, classes: Iterable[ClassDescription], ignore_colour: Colour = (0, 0, 0)
) -> Dataset:
    """The data set that a ``model.json`` or the records tell of."""
    entries = tuple(classes)
    names, colours = tuple(entry.name for entry in entries), tuple(entry.colour for entry in entries)
    label = 255 if ignore_label is None else ignore_label
    return Dataset(name, len(entries), label, names, colours, ignore_colour)
