"""A sheet of examples: photo, truth and prediction side by side, one row an image."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from deeplab.data.datasets import Dataset

Array = npt.NDArray[Any]
_CELL, _GAP, _HEAD = 240, 6, 22
_COLUMNS = ("photo", "truth", "prediction")
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


@dataclass
class Sheet:
    """Collects rows and draws them.

    Attributes:
        dataset: the colours.
        rows: images per row, each uint8 [height, width, 3].
    """

    dataset: Dataset
    rows: list[tuple[Array, Array, Array]] = field(default_factory=list)

    def add(self, photo: Array, truth: Array, prediction: Array) -> None:
        """Add a row: photo uint8 [h, w, 3], label maps [h, w]. Ignored pixels are black in both maps."""
        ignored = truth == self.dataset.ignore_label
        painted = [self.dataset.paint(labels) for labels in (truth, prediction)]
        for picture in painted:
            picture[ignored] = 0
        self.rows.append((photo, painted[0], painted[1]))

    def draw(self) -> Image.Image:
        """The sheet, scaled so that a cell is 240 pixels wide."""
        heights = [max(1, round(_CELL * photo.shape[0] / photo.shape[1])) for photo, _, _ in self.rows]
        width = len(_COLUMNS) * (_CELL + _GAP) + _GAP
        sheet = Image.new("RGB", (width, _HEAD + sum(height + _GAP for height in heights)), _PAPER)
        pen = ImageDraw.Draw(sheet)
        for column, title in enumerate(_COLUMNS):
            pen.text((_GAP + column * (_CELL + _GAP) + _CELL / 2, _HEAD / 2), title, fill=_INK, anchor="mm")
        top = _HEAD
        for row, height in zip(self.rows, heights, strict=True):
            for column, picture in enumerate(row):
                method = Image.Resampling.LANCZOS if column == 0 else Image.Resampling.NEAREST
                cell = Image.fromarray(np.ascontiguousarray(picture)).resize((_CELL, height), method)
                sheet.paste(cell, (_GAP + column * (_CELL + _GAP), top))
            top += height + _GAP
        return sheet

    def write(self, path: Path) -> None:
        """Write as PNG, by rename."""
        temporary = path.with_name(f".tmp-{path.name}")
        self.draw().save(temporary, format="PNG", optimize=True)
        temporary.replace(path)
