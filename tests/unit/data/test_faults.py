"""Every kind of bad file that the data maker knows: which end a conversion, which are kept, and what is said."""

import importlib.util
import zipfile
from pathlib import Path

import numpy as np
import pytest

from deeplab.data import convert
from deeplab.data.images import decode_labels
from deeplab.data.shards import list_shards
from deeplab.data.tfrecord import parse_example, read_records
from deeplab.errors import DataError
from deeplab.stage import Manifest

_MAKER = Path(__file__).resolve().parents[4] / "shared" / "tools" / "make_ade20k_like.py"
_NAME = "ADE_train_00000002"
_PHOTO, _MASK = f"images/training/{_NAME}.jpg", f"annotations/training/{_NAME}.png"
# Kind -> what the message says after the file's name; each ends with what to do.
_ERRORS = {
    "truncated-jpeg": r"jpg: damaged or cut short .*; replace the file",
    "empty-jpeg": r"jpg: the file is empty; replace it",
    "truncated-png": r"png: damaged or cut short .*; replace the file",
    "bad-idat": r"png: damaged or cut short .*; replace the file",
    "zip-crc": r"jpg is damaged .*; fetch the archive again",
    "png-as-jpg": r"jpg: holds a PNG in spite of its name; rename it",
    "size-mismatch": r"png is \d+x\d+ pixels, its photo .* \d+x\d+; the two must be equal, so replace",
    "label-range": r"png: label value 151 at row 3, column 5; sample allows 0\.\.8 and 255 \(ignored\)\. Mend the mask",
    "missing-label": r"jpg has no mask\. Add the partners",
    "l16-label": r"png: a 16-bit PNG, .*; save it with 8 bits",
}
_KEPT = ("cmyk", "rgb-label", "exif-rotated", "palette-label", "corrupt-scan")


@pytest.fixture(scope="module")
def maker():
    if not _MAKER.exists():
        pytest.skip("needs tools/make_ade20k_like.py in a folder 'shared' beside the repository")
    spec = importlib.util.spec_from_file_location("make_ade20k_like", _MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def spoilt(maker, sample_zip, rewritten, recwarn):
    """Makes the tiny data set with one bad file of a kind."""

    def make(kind):
        with zipfile.ZipFile(sample_zip) as archive:
            photo, mask = (archive.read(f"ADEChallengeData2016/{name}") for name in (_PHOTO, _MASK))
        path = rewritten(dict(zip((_PHOTO, _MASK), maker.spoil(kind, photo, mask), strict=True)))
        if kind == "zip-crc":
            content = path.read_bytes()
            place = content.index(photo) + len(photo) // 2
            path.write_bytes(content[:place] + bytes([content[place] ^ 0x10]) + content[place + 1 :])
        return path

    return make


def _convert(source, folder, **flags):
    convert.run({"dataset": "sample", "source": str(source), "output_dir": str(folder), "num_shards": 1, **flags})
    examples = (parse_example(record) for shard in list_shards(folder, "train") for record in read_records(shard))
    return {example["image/filename"].decode(): example for example in examples}


def test_no_kind_is_forgotten(maker):
    assert {*_ERRORS, *_KEPT, "extra-label"} == set(maker.FAULTS)


@pytest.mark.parametrize("kind", _ERRORS)
def test_an_error_names_file_and_remedy_and_leaves_nothing(kind, spoilt, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(DataError, match=f"{_NAME}.{_ERRORS[kind]}"):
        _convert(spoilt(kind), out)
    assert not out.exists() or [path.name for path in out.iterdir() if path.name[0] != "."] == []
    assert not list(out.glob(".*.done")) and not list(out.glob(".tmp-*"))


@pytest.mark.parametrize("kind", _ERRORS)
def test_a_bad_pair_can_be_left_out(kind, spoilt, tmp_path):
    found = _convert(spoilt(kind), tmp_path / "out", on_error="skip")
    assert len(found) == 7 and f"{_NAME}.jpg" not in found
    (reason,) = Manifest.read(tmp_path / "out" / "manifest.json").notes["skipped"]
    assert _NAME in reason


@pytest.mark.parametrize("kind", _KEPT)
def test_what_is_merely_odd_is_kept(kind, spoilt, sample_zip, tmp_path):
    found = _convert(spoilt(kind), tmp_path / "out")[f"{_NAME}.jpg"]
    whole = _convert(sample_zip, tmp_path / "whole")[f"{_NAME}.jpg"]
    for size in ("image/height", "image/width"):
        assert found[size] == whole[size], "an orientation mark is not applied, as in the original"
    mask = "image/segmentation/class/encoded"
    np.testing.assert_array_equal(decode_labels(found[mask], kind), decode_labels(whole[mask], kind))
    remarks = Manifest.read(tmp_path / "out" / "manifest.json").notes["remarks"]
    assert len(remarks) == (kind == "cmyk")


def test_cmyk_and_a_mask_without_photo_are_warned_about(spoilt, tmp_path, caplog):
    _convert(spoilt("cmyk"), tmp_path / "cmyk")
    assert f"{_NAME}.jpg: a CMYK photo, kept" in caplog.text
    assert len(_convert(spoilt("extra-label"), tmp_path / "extra")) == 7
    assert f"1 masks without photo are left out: ADEChallengeData2016/{_MASK}" in caplog.text
    assert Manifest.read(tmp_path / "extra" / "manifest.json").notes["left_out"] == [f"ADEChallengeData2016/{_MASK}"]


@pytest.mark.parametrize("kind", ["label-range", "bad-idat"])
def test_headers_do_not_tell_what_is_inside_a_mask(kind, spoilt, tmp_path):
    assert len(_convert(spoilt(kind), tmp_path / "out", validation="headers")) == 8


@pytest.mark.parametrize("level", ["labels", "decode"])
def test_damage_inside_a_photo_passes_every_decoder(level, spoilt, tmp_path):
    assert len(_convert(spoilt("corrupt-scan"), tmp_path / "out", validation=level)) == 8
