"""The confusion matrix and what is read off it."""

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class ConfusionMatrix:
    """Counts of (truth, prediction) over pixels that are not ignored.

    Args:
        num_classes: side of the matrix.
        ignore_label: truth value of pixels that do not count.
    """

    def __init__(self, num_classes: int, ignore_label: int) -> None:
        self._classes, self._ignore = num_classes, ignore_label
        self.counts = np.zeros((num_classes, num_classes), np.int64)
        self.images = 0

    def add(self, truth: Array, prediction: Array) -> None:
        """Count one label map of any shape against a prediction of that shape.

        Raises:
            ValueError: if a label is neither a class nor the ignore label.
        """
        self.images += 1
        counted = truth != self._ignore
        truth, prediction = truth[counted].astype(np.int64), prediction[counted].astype(np.int64)
        if truth.size and not 0 <= truth.min() <= truth.max() < self._classes:
            bad = int(truth.max() if truth.max() >= self._classes else truth.min())
            raise ValueError(f"label {bad} is not in 0..{self._classes - 1} nor the ignore label {self._ignore}")
        flat = np.bincount(truth * self._classes + prediction, minlength=self._classes**2)
        self.counts += flat.reshape(self.counts.shape)

    @property
    def iou(self) -> Array:
        """float64 [classes]: intersection over union; NaN where truth and prediction both lack the class."""
        hits = np.diag(self.counts).astype(np.float64)
        union = self.counts.sum(0) + self.counts.sum(1) - hits
        return _ratio(hits, union)

    @property
    def accuracy(self) -> Array:
        """float64 [classes]: recall; NaN where the truth lacks the class."""
        return _ratio(np.diag(self.counts).astype(np.float64), self.pixels)

    @property
    def pixels(self) -> Array:
        """int64 [classes]: truth pixels."""
        return self.counts.sum(1)

    def summary(self) -> dict[str, float | None]:
        """MIoU over classes with a union, pixel accuracy, mean accuracy over classes with truth, weighted IoU.

        A value is None where nothing was counted.
        """
        total = self.counts.sum()
        if not total:
            return dict.fromkeys(("miou", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iou"))
        return {
            "miou": float(np.nanmean(self.iou)),
            "pixel_accuracy": float(np.diag(self.counts).sum() / total),
            "mean_accuracy": float(np.nanmean(self.accuracy)),
            "frequency_weighted_iou": float(np.nansum(self.iou * self.pixels) / total),
        }


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
