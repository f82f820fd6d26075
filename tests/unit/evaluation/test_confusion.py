import math

import numpy as np
import pytest

from deeplab.evaluation.confusion import ConfusionMatrix


def test_by_hand() -> None:
    confusion = ConfusionMatrix(4, ignore_label=255)
    confusion.add(np.array([[0, 0, 1], [1, 1, 255]], np.uint8), np.array([[0, 1, 1], [1, 2, 3]], np.int64))
    assert confusion.iou[:3] == pytest.approx([1 / 2, 2 / 4, 0 / 1])
    assert math.isnan(confusion.iou[3])
    assert confusion.accuracy[:2] == pytest.approx([1 / 2, 2 / 3])
    assert np.isnan(confusion.accuracy[2:]).all()
    assert confusion.pixels.tolist() == [2, 3, 0, 0]
    summary = confusion.summary()
    assert summary["miou"] == pytest.approx((1 / 2 + 1 / 2 + 0) / 3)
    assert summary["pixel_accuracy"] == pytest.approx(3 / 5)
    assert summary["mean_accuracy"] == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert summary["frequency_weighted_iou"] == pytest.approx((2 * 0.5 + 3 * 0.5) / 5)


def test_a_label_outside_the_classes_is_named() -> None:
    with pytest.raises(ValueError, match=r"label 7 is not in 0\.\.3"):
        ConfusionMatrix(4, ignore_label=255).add(np.array([7]), np.array([0]))


def test_nothing_counted() -> None:
    confusion = ConfusionMatrix(2, ignore_label=0)
    confusion.add(np.zeros((2, 2), np.uint8), np.ones((2, 2), np.int64))
    assert confusion.summary()["miou"] is None
