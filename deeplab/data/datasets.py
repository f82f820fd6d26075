"""The registered data sets: classes, colours, and which values a mask may hold.

Names and colours stand in ``tables/NAME.csv``. Its rows 0, 1, ... are the classes; a last row whose id is the
ignore label gives ignored pixels a colour.
"""

import csv
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.config import ClassDescription
from deeplab.errors import ConfigError, DataError

Colour = tuple[int, int, int]


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
    """

    name: str
    num_classes: int
    ignore_label: int
    class_names: tuple[str, ...]
    colours: tuple[Colour, ...]
    ignore_colour: Colour = (0, 0, 0)

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


def _load(name: str, ignore_label: int) -> Dataset:
    table = resources.files("deeplab.data") / "tables" / f"{name}.csv"
    rows = list(csv.DictReader(table.read_text(encoding="utf-8").splitlines()))
    colours = {int(row["id"]): (int(row["red"]), int(row["green"]), int(row["blue"])) for row in rows}
    names = [row["name"] for number, row in enumerate(rows) if int(row["id"]) == number]
    classes = tuple(colours[number] for number in range(len(names)))
    return Dataset(name, len(names), ignore_label, tuple(names), classes, colours[ignore_label])


DATASETS: Mapping[str, Dataset] = MappingProxyType(
    {
        name: _load(name, ignore_label)
        for name, ignore_label in (("ade20k", 0), ("pascal_voc_seg", 255), ("cityscapes", 255), ("sample", 255))
    }
)


def get_dataset(name: str) -> Dataset:
    """The data set of that name.

    Raises:
        ConfigError: for an unknown name, listing the known ones, the nearest first.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name, DATASETS, n=len(DATASETS), cutoff=0.4)
    listed = [*near, *(known for known in DATASETS if known not in near)]
    raise ConfigError(f"--dataset={name}: unknown data set; one of {', '.join(listed)}")
