from pathlib import Path

import numpy as np
import pytest

from deeplab.config import ModelDescription
from deeplab.data.colours import pascal_colours
from deeplab.data.datasets import DATASETS, get_dataset
from deeplab.errors import ConfigError, DataError

_COLOURS = Path(__file__).resolve().parents[4] / "shared" / "goldens" / "misc" / "colormaps.npz"


@pytest.mark.parametrize("name", DATASETS)
def test_every_dataset_keeps_the_contract(name):
    dataset = get_dataset(name)
    assert dataset.name == name
    assert len(dataset.class_names) == len(dataset.colours) == dataset.num_classes
    assert len(set(dataset.class_names)) == dataset.num_classes
    assert all(text and text == text.strip() and ";" not in text for text in dataset.class_names)
    assert len(set(dataset.colours)) > 0.95 * dataset.num_classes
    labels = np.array([sorted(dataset.label_values)], np.uint8)
    painted = dataset.paint(labels)
    assert painted.dtype == np.uint8 and painted.shape == (*labels.shape, 3)
    assert [tuple(colour) for colour in painted[0][: dataset.num_classes].tolist()] == list(dataset.colours)
    fields = dataset.description()
    ModelDescription(fields={}, num_classes=dataset.num_classes, crop_size=(5, 5), **fields)
    assert fields["ignore_label"] == dataset.ignore_label


@pytest.mark.parametrize(
    ("name", "classes", "ignore"),
    [("ade20k", 151, 0), ("pascal_voc_seg", 21, 255), ("cityscapes", 19, 255), ("sample", 9, 255)],
)
def test_sizes_are_the_originals(name, classes, ignore):
    dataset = get_dataset(name)
    assert (dataset.num_classes, dataset.ignore_label) == (classes, ignore)
    assert dataset.label_values == {*range(classes), ignore}


@pytest.mark.parametrize(("name", "golden"), [("ade20k", "ade20k"), ("pascal_voc_seg", "pascal"), ("cityscapes",) * 2])
def test_colours_are_the_originals(name, golden):
    if not _COLOURS.exists():
        pytest.skip("needs goldens/misc/colormaps.npz in a folder 'shared' beside the repository")
    dataset = get_dataset(name)
    expected = np.load(_COLOURS)[f"{golden}/colormap"]
    np.testing.assert_array_equal(dataset.colours, expected[: dataset.num_classes])
    if golden != "ade20k":
        assert dataset.ignore_colour == tuple(expected[255])


def test_pascal_colours_fill_bits():
    dataset = get_dataset("pascal_voc_seg")
    np.testing.assert_array_equal(dataset.colours, pascal_colours(21))
    assert dataset.ignore_colour == (224, 224, 192)


def test_unknown_name_lists_the_nearest_first():
    with pytest.raises(ConfigError, match=r"--dataset=ade20: unknown data set; one of ade20k, .*cityscapes"):
        get_dataset("ade20")


def test_labels_without_colour_are_refused():
    with pytest.raises(DataError, match=r"label 9 has no colour; sample has 0\.\.8 and 255"):
        get_dataset("sample").paint(np.array([[0, 9]], np.uint8))
    with pytest.raises(DataError, match="label -1"):
        get_dataset("ade20k").paint(np.array([[-1]]))
    with pytest.raises(DataError, match=r"float64 \[1, 1\]"):
        get_dataset("ade20k").paint(np.zeros((1, 1)))
