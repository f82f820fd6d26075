import io
import zipfile
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from deeplab.data import sample
from deeplab.data.datasets import get_dataset
from deeplab.errors import ConfigError
from deeplab.stage import Manifest, manifest_path

_DATASET = get_dataset("sample")


def _draw(path, **flags):
    sample.run({"output_path": str(path), **flags})
    return path


def _images(path, part):
    with zipfile.ZipFile(path) as archive:
        names = [name for name in archive.namelist() if part in name]
        return {name: Image.open(io.BytesIO(archive.read(name))) for name in names}


def test_a_seed_gives_the_same_bytes(sample_zip, tmp_path):
    assert _draw(tmp_path / "a.zip", size=8).read_bytes() == sample_zip.read_bytes()
    assert _draw(tmp_path / "b.zip", size=8, seed=1).read_bytes() != sample_zip.read_bytes()


def test_a_larger_set_begins_with_a_smaller_one(sample_zip, tmp_path):
    _draw(tmp_path / "four.zip", size=4)
    with zipfile.ZipFile(tmp_path / "four.zip") as small, zipfile.ZipFile(sample_zip) as large:
        assert all(large.read(name) == small.read(name) for name in small.namelist())


def test_the_layout_is_ade20ks(sample_zip):
    with zipfile.ZipFile(sample_zip) as archive:
        assert archive.testzip() is None
        folders = Counter(name.rpartition("/")[0] for name in archive.namelist())
        assert "ADEChallengeData2016/images/training/ADE_train_00000001.jpg" in archive.namelist()
        assert "ADEChallengeData2016/annotations/validation/ADE_val_00000002.png" in archive.namelist()
    assert folders == {
        f"ADEChallengeData2016/{kind}/{split}": count
        for kind in ("images", "annotations")
        for split, count in (("training", 8), ("validation", 2))
    }


def test_photos_vary_as_real_ones_do(tmp_path):
    photos = list(_images(_draw(tmp_path / "s.zip", size=16), "images/").values())
    assert Counter(photo.mode for photo in photos) == {"L": 1, "RGB": 19}
    assert len({photo.size for photo in photos}) > 10
    assert {photo.width > photo.height for photo in photos} == {True, False}
    assert all(97 <= min(photo.size) <= 160 and 131 <= max(photo.size) <= 200 for photo in photos)


def test_every_class_appears_in_a_good_share_of_scenes(tmp_path):
    masks = [np.asarray(mask) for mask in _images(_draw(tmp_path / "s.zip", size=40), "annotations/").values()]
    assert all(set(np.unique(mask).tolist()) <= _DATASET.label_values for mask in masks)
    for label, name in enumerate(_DATASET.class_names):
        assert np.mean([(mask == label).sum() > 50 for mask in masks]) > 0.3, name
    assert np.mean([np.mean(mask == _DATASET.ignore_label) for mask in masks]) < 0.15


def test_the_file_is_sealed_and_not_drawn_twice(tmp_path, caplog):
    caplog.set_level("INFO")
    path = _draw(tmp_path / "s.zip", size=4)
    before = path.stat().st_mtime_ns
    assert Manifest.read(manifest_path(path)).parameters == {"seed": 0, "size": 4}
    _draw(path, size=4)
    assert path.stat().st_mtime_ns == before
    assert "already drawn" in caplog.text


def test_too_small_a_set_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--size=3"):
        _draw(tmp_path / "s.zip", size=3)
