"""A sheet of samples, photo beside mask, with a legend of the classes that are on it."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from deeplab.data.datasets import Dataset

# Pixels: width of a picture, space between things, height of a line of the legend, width of its column.
_CELL, _GAP, _LINE, _COLUMN = 280, 6, 18, 187
_COLUMNS = 3
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


@dataclass
class SampleSheet:
    """Collects pairs and draws them.

    Attributes:
        dataset: names and colours.
        rows: photo and painted mask, both 280 pixels wide.
        shown: labels that are on the sheet.
    """

    dataset: Dataset
    rows: list[tuple[Image.Image, Image.Image]] = field(default_factory=list)
    shown: set[int] = field(default_factory=set)

    def add(self, photo: bytes, labels: npt.NDArray[np.uint8]) -> None:
        """Add a pair: an encoded photo, and its labels [height, width]."""
        size = (_CELL, max(1, round(_CELL * labels.shape[0] / labels.shape[1])))
        with Image.open(io.BytesIO(photo)) as opened:
            picture = opened.convert("RGB").resize(size, Image.Resampling.LANCZOS)
        painted = Image.fromarray(self.dataset.paint(labels)).resize(size, Image.Resampling.NEAREST)
        self.rows.append((picture, painted))
        self.shown |= set(np.unique(labels).tolist())

    def draw(self) -> Image.Image:
        """The sheet: rows of photo and mask, then the legend."""
        legend = self._legend()
        heights = [photo.height + _GAP for photo, _ in self.rows]
        lines = -(-len(legend) // _COLUMNS)
        sheet = Image.new("RGB", (2 * _CELL + 3 * _GAP, sum(heights) + 2 * _GAP + lines * _LINE), _PAPER)
        top = _GAP
        for row, height in zip(self.rows, heights, strict=True):
            for column, picture in enumerate(row):
                sheet.paste(picture, (_GAP + column * (_CELL + _GAP), top))
            top += height
        pen = ImageDraw.Draw(sheet)
        for number, (text, colour) in enumerate(legend):
            left, line = _GAP + number % _COLUMNS * _COLUMN, top + number // _COLUMNS * _LINE
            pen.rectangle((left, line + 2, left + 12, line + 14), fill=colour, outline=_INK)
            pen.text((left + 18, line + _LINE / 2), text, fill=_INK, anchor="lm")
        return sheet

    def write(self, path: Path) -> None:
        """Write as PNG, by rename."""
        temporary = path.with_name(f".tmp-{path.name}")
        self.draw().save(temporary, format="PNG", optimize=True)
        temporary.replace(path)

    def _legend(self) -> list[tuple[str, tuple[int, int, int]]]:
        dataset = self.dataset
        entries = [
            (f"{label} {dataset.class_names[label]}", dataset.colours[label])
            for label in sorted(self.shown)
            if label < dataset.num_classes
        ]
        if dataset.ignore_label in self.shown and dataset.ignore_label >= dataset.num_classes:
            entries.append((f"{dataset.ignore_label} ignored", dataset.ignore_colour))
        return entries
