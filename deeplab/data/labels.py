"""What the values or colours of masks stand for: the labels that records hold."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from deeplab.errors import DataError

Labels = npt.NDArray[np.uint8]
Colour = tuple[int, int, int]
_ILLEGAL = -1


@dataclass(frozen=True)
class LabelMap:
    """Mask values to labels.

    Attributes:
        dataset: the data set's name, for messages.
        num_classes: labels are 0 .. num_classes - 1.
        ignore_label: the label of pixels that do not count.
        values: mask value -> label.
        offset: what is added to a mask value that ``values`` does not name.
    """

    dataset: str
    num_classes: int
    ignore_label: int
    values: tuple[tuple[int, int], ...] = ()
    offset: int = 0

    @cached_property
    def table(self) -> npt.NDArray[np.int16]:
        """int16 [256], the label of each mask value, -1 for a value that no mask may hold."""
        table = np.arange(256, dtype=np.int16) + self.offset
        table[(table < 0) | (table >= self.num_classes)] = _ILLEGAL
        table[self.ignore_label] = self.ignore_label
        for value, label in self.values:
            table[value] = label
        return table

    @cached_property
    def keeps_values(self) -> bool:
        """Whether every legal mask value is its own label, so that a gray PNG can stay as it is."""
        return bool(np.all((self.table == np.arange(256)) | (self.table == _ILLEGAL)))

    @property
    def allowed(self) -> str:
        """The legal mask values in words, for messages."""
        legal = np.flatnonzero(self.table != _ILLEGAL).tolist()
        plain = [value for value in legal if value != self.ignore_label or self.ignore_label < self.num_classes]
        return _ranges(plain) + (f" and {self.ignore_label} (ignored)" if len(plain) < len(legal) else "")

    def labels(self, mask: Labels, name: str) -> Labels:
        """The labels of a mask's values, both uint8 [height, width].

        Raises:
            DataError: naming the first value that stands for nothing, with its place.
        """
        if self.keeps_values and int(mask.max(initial=0)) < self.num_classes:
            return mask
        found = self.table[mask]
        illegal = found == _ILLEGAL
        if illegal.any():
            row, column = (int(index) for index in np.argwhere(illegal)[0])
            raise DataError(
                f"{name}: label value {int(mask[row, column])} at row {row}, column {column}; {self.dataset} allows "
                f"{self.allowed}. Mend the mask, give the value a meaning (values: in a dataset.yaml), or leave the "
                "pair out with --on_error=skip"
            )
        return mask if self.keeps_values else found.astype(np.uint8)


@dataclass(frozen=True)
class ColourMap:
    """Mask colours to labels.

    Attributes:
        dataset: the data set's name, for messages.
        colours: colour -> label; each colour once.
    """

    dataset: str
    colours: tuple[tuple[Colour, int], ...]

    @cached_property
    def _sorted(self) -> tuple[npt.NDArray[np.int32], Labels]:
        codes = np.array([(red << 16) | (green << 8) | blue for (red, green, blue), _ in self.colours], np.int32)
        order = np.argsort(codes)
        return codes[order], np.array([label for _, label in self.colours], np.uint8)[order]

    def labels(self, mask: npt.NDArray[np.uint8], name: str) -> Labels:
        """The labels uint8 [height, width] of a mask's colours, uint8 [height, width, 3].

        Raises:
            DataError: naming the first colour that no class has, with its place.
        """
        codes, labels = self._sorted
        wide = mask.astype(np.int32)
        pixels = (wide[..., 0] << 16) | (wide[..., 1] << 8) | wide[..., 2]
        places = np.searchsorted(codes, pixels).clip(max=len(codes) - 1)
        unknown = codes[places] != pixels
        if unknown.any():
            row, column = (int(index) for index in np.argwhere(unknown)[0])
            raise DataError(
                f"{name}: colour {','.join(map(str, mask[row, column].tolist()))} at row {row}, column {column} is no "
                f"class of {self.dataset}. Mend the mask, add the colour to the classes or to ignore_colours, or leave "
                "the pair out with --on_error=skip"
            )
        return labels[places]


MaskReading = LabelMap | ColourMap


def label_map(dataset: str, num_classes: int, ignore_label: int, values: Mapping[int, int], offset: int) -> LabelMap:
    """A ``LabelMap`` from a file's value map."""
    return LabelMap(dataset, num_classes, ignore_label, tuple(sorted(values.items())), offset)


def colour_map(dataset: str, colours: Sequence[Colour], ignored: Iterable[Colour], ignore_label: int) -> ColourMap:
    """A ``ColourMap`` where class number n has colour number n."""
    known: dict[Colour, Any] = dict.fromkeys(ignored, ignore_label)
    known |= {colour: label for label, colour in enumerate(colours)}
    return ColourMap(dataset, tuple(sorted(known.items())))


def _ranges(values: Sequence[int]) -> str:
    """Sorted integers in words: ``0..8, 10``."""
    parts: list[list[int]] = []
    for value in values:
        if parts and value == parts[-1][-1] + 1:
            parts[-1][1:] = [value]
        else:
            parts.append([value])
    return ", ".join("..".join(map(str, part)) for part in parts)
