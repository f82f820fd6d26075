import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from deeplab.data import convert
from deeplab.data.datasets import get_dataset
from deeplab.data.images import decode_labels, encode_png
from deeplab.data.records_description import describe_records
from deeplab.data.shards import list_shards, open_data_folder
from deeplab.data.tfrecord import parse_example, read_records
from deeplab.errors import ConfigError, DataError, OutputError
from deeplab.stage import Manifest

_PHOTO, _MASK = "images/training/ADE_train_00000002.jpg", "annotations/training/ADE_train_00000002.png"


def _convert(source, folder, **flags):
    convert.run({"dataset": "sample", "source": str(source), "output_dir": str(folder), **flags})
    return folder


def _examples(folder, split):
    shards = list_shards(folder, split)
    return [[parse_example(record) for record in read_records(shard)] for shard in shards]


def _left(folder):
    return sorted(entry.name for entry in folder.iterdir() if entry.name not in (".lock", ".unfinished.json"))


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix in (".tfrecord", ".gz")}


def _member(archive, name):
    with zipfile.ZipFile(archive) as opened:
        return opened.read(f"ADEChallengeData2016/{name}")


def test_a_zip_becomes_shards(sample_zip, tmp_path, capsys):
    folder = _convert(sample_zip, tmp_path / "out", num_shards=3)
    train, val = _examples(folder, "train"), _examples(folder, "val")
    assert [len(shard) for shard in train] == [3, 3, 2]
    assert [len(shard) for shard in val] == [1, 1, 0]
    names = [example["image/filename"].decode() for shard in train for example in shard]
    assert sorted(names) == [f"ADE_train_{number:08d}.jpg" for number in range(1, 9)] != names
    assert capsys.readouterr().out.splitlines() == [
        '{"split": "train", "pairs": 8, "shards": 3}',
        '{"split": "val", "pairs": 2, "shards": 3}',
    ]
    manifest = Manifest.read(folder / "manifest.json")
    assert [output.path for output in manifest.outputs] == sorted({"dataset.json", *_bytes(folder)})
    assert {output.kind for output in manifest.outputs} == {"product"}


def test_features_are_the_originals(sample_zip, tmp_path):
    (examples,) = _examples(_convert(sample_zip, tmp_path / "out", num_shards=1), "train")
    example = next(one for one in examples if one["image/filename"] == b"ADE_train_00000002.jpg")
    photo, mask = _member(sample_zip, _PHOTO), _member(sample_zip, _MASK)
    width, height = Image.open(io.BytesIO(photo)).size
    assert example == {
        "image/encoded": photo,
        "image/filename": b"ADE_train_00000002.jpg",
        "image/format": b"jpeg",
        "image/height": height,
        "image/width": width,
        "image/channels": 3,
        "image/segmentation/class/encoded": mask,
        "image/segmentation/class/format": b"png",
    }


def test_bytes_do_not_depend_on_threads_but_on_the_seed(sample_zip, tmp_path):
    one = _convert(sample_zip, tmp_path / "one", num_threads=1)
    two = _convert(sample_zip, tmp_path / "two", num_threads=2)
    other = _convert(sample_zip, tmp_path / "other", seed=1)
    assert _bytes(one) == _bytes(two)
    assert _bytes(one)["train-00000-of-00004.tfrecord"] != _bytes(other)["train-00000-of-00004.tfrecord"]


def test_the_archive_holds_the_shards(sample_zip, tmp_path):
    out = _convert(sample_zip, tmp_path / "out")
    with open_data_folder(out / "tfrecords.tar.gz") as folder:
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            "dataset.json": (out / "dataset.json").read_bytes(),
            **{name: content for name, content in _bytes(out).items() if name != "tfrecords.tar.gz"},
        }


def test_the_archive_can_be_left_out(sample_zip, tmp_path):
    folder = _convert(sample_zip, tmp_path / "out", archive=False)
    assert len(list_shards(folder, "train")) == 4 and not (folder / "tfrecords.tar.gz").exists()
    assert Manifest.read(folder / "manifest.json").damage(folder, deep=True) is None


@pytest.mark.parametrize("root", ["", "ADEChallengeData2016"])
def test_a_folder_gives_the_same_records(sample_zip, tmp_path, root):
    with zipfile.ZipFile(sample_zip) as archive:
        archive.extractall(tmp_path / "tree")
    from_folder = _convert(tmp_path / "tree" / root, tmp_path / "a")
    assert _bytes(from_folder) == _bytes(_convert(sample_zip, tmp_path / "b"))


def test_a_folder_with_one_zip_stands_for_the_zip(sample_zip, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "x.zip").write_bytes(sample_zip.read_bytes())
    assert _bytes(_convert(tmp_path / "in", tmp_path / "a")) == _bytes(_convert(sample_zip, tmp_path / "b"))


def test_the_four_folder_flags_give_the_same_records(sample_zip, tmp_path):
    with zipfile.ZipFile(sample_zip) as archive:
        archive.extractall(tmp_path)
    root = tmp_path / "ADEChallengeData2016"
    convert.run(
        {
            "dataset": "sample",
            "train_image_folder": str(root / "images/training"),
            "train_image_label_folder": str(root / "annotations/training"),
            "val_image_folder": str(root / "images/validation"),
            "val_image_label_folder": str(root / "annotations/validation"),
            "output_dir": str(tmp_path / "a"),
        }
    )
    assert _bytes(tmp_path / "a") == _bytes(_convert(sample_zip, tmp_path / "b"))


def test_without_source_and_folders_it_says_what_to_pass(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"no such folder: --train_image_folder=\./ADE20K.* Pass --source="):
        convert.run({})


def test_what_lies_beside_is_passed_over(sample_zip, rewritten, tmp_path):
    extra = rewritten(
        {
            "objectInfo150.txt": b"text",
            "images/training/Thumbs.db": b"x",
            "images/training/._ADE_train_00000001.jpg": b"x",
            "__MACOSX/images/training/ADE_train_00000009.jpg": b"x",
            "images/training/": b"",
        }
    )
    assert _bytes(_convert(extra, tmp_path / "a")) == _bytes(_convert(sample_zip, tmp_path / "b"))


def test_a_palette_mask_is_written_as_labels(rewritten, sample_zip, tmp_path):
    labels = decode_labels(_member(sample_zip, _MASK), "m")
    image, buffer = Image.fromarray(labels), io.BytesIO()
    image.putpalette([9, 8, 7] * 256)
    image.save(buffer, "PNG")
    (examples,) = _examples(_convert(rewritten({_MASK: buffer.getvalue()}), tmp_path / "out", num_shards=1), "train")
    found = next(one for one in examples if one["image/filename"] == b"ADE_train_00000002.jpg")
    np.testing.assert_array_equal(decode_labels(found["image/segmentation/class/encoded"], "m"), labels)


def _faults(sample_zip):
    photo, mask = _member(sample_zip, _PHOTO), decode_labels(_member(sample_zip, _MASK), "m")
    spoilt = mask.copy()
    spoilt[3, 4] = 9
    return {
        "photo cut short": ({_PHOTO: photo[:-200]}, r"ADE_train_00000002\.jpg: damaged or cut short"),
        "mask is a text": ({_MASK: b"text"}, r"ADE_train_00000002\.png: neither JPEG nor PNG"),
        "sizes differ": (
            {_MASK: encode_png(mask[:-1])},
            rf"00000002\.png is {mask.shape[1]}x{mask.shape[0] - 1} pixels, its photo .*00000002\.jpg "
            rf"{mask.shape[1]}x{mask.shape[0]}",
        ),
        "label out of range": (
            {_MASK: encode_png(spoilt)},
            r"ADE_train_00000002\.png: label value 9 at row 3, column 4; sample allows 0\.\.8 and 255",
        ),
        "photo without mask": (
            {_MASK: None, "images/validation/extra.jpg": b""},
            r"2 files without partner: .*ADE_train_00000002\.jpg has no mask; .*extra\.jpg has no mask\. Add",
        ),
        "many photos without mask": (
            {f"images/training/x{number}.jpg": b"" for number in range(25)},
            "25 files without partner: .*; and 15 more",
        ),
        "two photos of one name": ({_PHOTO.replace(".jpg", ".png"): photo}, "share a name"),
        "two data sets": ({f"other/{_PHOTO}": photo}, "holds several data sets"),
    }


@pytest.mark.parametrize(
    "fault",
    [
        "photo cut short",
        "mask is a text",
        "sizes differ",
        "label out of range",
        "photo without mask",
        "many photos without mask",
        "two photos of one name",
        "two data sets",
    ],
)
def test_a_fault_is_named_and_leaves_nothing(fault, sample_zip, rewritten, tmp_path):
    changes, message = _faults(sample_zip)[fault]
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match=message):
        _convert(rewritten(changes), tmp_path / "out")
    assert _left(tmp_path / "out") == []
    # What failed does not block the folder for the mended data.
    _convert(sample_zip, tmp_path / "out")


@pytest.mark.parametrize("keep", [0, 1000, -1])
def test_a_zip_cut_short_is_an_error(sample_zip, tmp_path, keep):
    path = tmp_path / "short.zip"
    path.write_bytes(sample_zip.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"short\.zip: not a zip archive, or cut short .*fetch it again"):
        _convert(path, tmp_path / "out")


def test_a_damaged_member_is_an_error(sample_zip, tmp_path):
    photo = _member(sample_zip, _PHOTO)
    path = tmp_path / "bad.zip"
    path.write_bytes(sample_zip.read_bytes().replace(photo, photo[:900] + bytes(20) + photo[920:]))
    with pytest.raises(DataError, match=r"bad\.zip: .*ADE_train_00000002\.jpg is damaged \(its checksum"):
        _convert(path, tmp_path / "out")
    assert _left(tmp_path / "out") == []


def test_an_empty_data_set_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    with pytest.raises(
        DataError, match=r"no photos of sample found; expected images/training/\* \(jpg\|jpeg\|png\) with annot"
    ):
        _convert(tmp_path / "empty.zip", tmp_path / "out")


def test_a_missing_source_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"none\.zip: no such file"):
        _convert(tmp_path / "none.zip", tmp_path / "out")


def test_a_folder_that_cannot_be_written_is_an_error(sample_zip, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        _convert(sample_zip, tmp_path / "file" / "sub")


@pytest.mark.parametrize("name", ["cityscapes", "pascal_voc_seg"])
def test_another_layout_says_what_it_expects(sample_zip, tmp_path, name):
    with pytest.raises(DataError, match=rf"no photos of {name} found; expected \w+/"):
        _convert(sample_zip, tmp_path / "out", dataset=name)
    with pytest.raises(ConfigError, match=rf"--source is required for --dataset={name}"):
        convert.run({"dataset": name, "output_dir": str(tmp_path / "out")})


def test_a_finished_folder_is_left_alone(sample_zip, tmp_path, caplog):
    caplog.set_level("INFO")
    folder = _convert(sample_zip, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}
    _convert(sample_zip, folder)
    assert "already converted" in caplog.text
    assert before == {path: path.stat().st_mtime_ns for path in folder.glob("*.tfrecord")}
    with pytest.raises(OutputError, match="--num_shards is 4 there, 2 given"):
        _convert(sample_zip, folder, num_shards=2)


def test_an_unfinished_folder_is_written_anew(sample_zip, tmp_path):
    folder = _convert(sample_zip, tmp_path / "out")
    expected = _bytes(folder)
    (folder / "train-00001-of-00004.tfrecord").write_bytes(b"half")
    (folder / ".tmp-train-00002-of-00004.tfrecord").write_bytes(b"half")
    _convert(sample_zip, folder)
    assert _bytes(folder) == expected and not list(folder.glob(".tmp-*"))


@pytest.fixture(scope="module")
def large_zip(sample_zip, tmp_path_factory):
    """So many pairs that a conversion takes seconds."""
    path = tmp_path_factory.mktemp("large") / "large.zip"
    with zipfile.ZipFile(path, "w") as archive:
        photo, mask = _member(sample_zip, _PHOTO), _member(sample_zip, _MASK)
        for number in range(8_000):
            archive.writestr(f"images/training/{number}.jpg", photo)
            archive.writestr(f"annotations/training/{number}.png", mask)
    return path


def _start(source, out):
    words = ["--dataset=sample", f"--source={source}", f"--output_dir={out}", "--num_shards=40"]
    return subprocess.Popen([sys.executable, "-m", "deeplab", "convert", *words], stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("signal_number", [signal.SIGTERM, signal.SIGKILL])
def test_whole_shards_outlive_a_stop_and_a_kill(large_zip, tmp_path, signal_number):
    out = tmp_path / "out"
    process = _start(large_zip, out)
    while len(list(out.glob("train-*"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    started = time.monotonic()
    os.kill(process.pid, signal_number)
    _, stderr = process.communicate(timeout=30)
    assert process.returncode == (143 if signal_number == signal.SIGTERM else -signal.SIGKILL), stderr
    assert time.monotonic() - started < 5
    assert not (out / "manifest.json").exists()
    if signal_number == signal.SIGTERM:
        assert not list(out.glob(".tmp-*"))
    kept = {path: path.stat().st_mtime_ns for path in out.glob("train-*") if (out / f".{path.name}.done").exists()}
    assert 2 <= len(kept) < 40
    process = _start(large_zip, out)
    assert process.communicate(timeout=120) and process.returncode == 0
    assert kept == {path: path.stat().st_mtime_ns for path in kept}
    assert Manifest.read(out / "manifest.json").notes["splits"]["train"]["pairs"] == 8_000
    assert not list(out.glob(".*.done")) and not list(out.glob(".tmp-*"))


def test_the_manifest_tells_counts_and_largest_sizes(sample_zip, tmp_path):
    notes = Manifest.read(_convert(sample_zip, tmp_path / "out") / "manifest.json").notes
    with zipfile.ZipFile(sample_zip) as archive:
        sizes = [Image.open(archive.open(name)).size for name in archive.namelist() if "images/training" in name]
    largest = [max(height for _, height in sizes), max(width for width, _ in sizes)]
    assert notes["splits"]["train"] == {"pairs": 8, "largest": largest}
    assert notes["skipped"] == notes["left_out"] == notes["remarks"] == []


def test_bad_pairs_are_skipped_and_noted(sample_zip, rewritten, tmp_path):
    third = _MASK.replace("2.png", "3.png")
    changes = {_MASK: encode_png(np.full((9, 9), 77, np.uint8)), third: None, "annotations/training/x.png": b""}
    out = _convert(rewritten(changes), tmp_path / "out", on_error="skip")
    assert sum(len(shard) for shard in _examples(out, "train")) == 6
    notes = Manifest.read(out / "manifest.json").notes
    lonely, bad = notes["skipped"]
    assert "ADE_train_00000003.jpg has no mask" in lonely
    assert "ADE_train_00000002.png is 9x9 pixels" in bad and str(tmp_path) not in bad
    assert notes["left_out"] == ["ADEChallengeData2016/annotations/training/x.png"]
    assert notes["splits"]["train"]["pairs"] == 6


def test_a_split_without_a_good_pair_is_an_error(sample_zip, rewritten, tmp_path):
    masks = {f"annotations/validation/ADE_val_0000000{number}.png": b"" for number in (1, 2)}
    with pytest.raises(DataError, match="no pair of split val is good"):
        _convert(rewritten(masks), tmp_path / "out", on_error="skip")
    assert _left(tmp_path / "out") == []


def test_only_the_splits_asked_for(sample_zip, tmp_path):
    out = _convert(sample_zip, tmp_path / "out", splits="val")
    assert sorted({path.name[:3] for path in out.glob("*.tfrecord")}) == ["val"]
    with pytest.raises(ConfigError, match="--splits=test: sample has train, val"):
        _convert(sample_zip, tmp_path / "other", splits="test")


@pytest.mark.parametrize("kind", ["w", "w:gz"])
def test_a_tar_gives_the_same_records(sample_zip, tmp_path, kind):
    path = tmp_path / ("x.tar.gz" if kind == "w:gz" else "x.tar")
    with zipfile.ZipFile(sample_zip) as archive, tarfile.open(path, kind) as packed:
        for name in reversed(archive.namelist()):
            entry = tarfile.TarInfo(name)
            entry.size = archive.getinfo(name).file_size
            packed.addfile(entry, archive.open(name))
    assert _bytes(_convert(path, tmp_path / "a")) == _bytes(_convert(sample_zip, tmp_path / "b"))


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
def test_however_a_zip_is_packed_the_records_are_the_same(sample_zip, tmp_path, method):
    path = tmp_path / "packed.zip"
    with zipfile.ZipFile(sample_zip) as before, zipfile.ZipFile(path, "w", method) as after:
        for name in reversed(before.namelist()):
            entry = zipfile.ZipInfo(name)
            entry.compress_type, entry.extra = method, b"zz\x04\x00abcd"
            after.writestr(entry, before.read(name))
    assert _bytes(_convert(path, tmp_path / "a")) == _bytes(_convert(sample_zip, tmp_path / "b"))


@pytest.mark.parametrize(
    ("size", "why"),
    [(1, "failed"), (5_000_000, "its checksum differs"), (1 << 40, "cannot be as long as the directory says")],
)
def test_a_directory_that_lies_about_sizes_is_an_error(sample_zip, tmp_path, size, why):
    path = tmp_path / "liar.zip"
    with zipfile.ZipFile(sample_zip) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as after:
        for name in before.namelist():
            after.writestr(name, before.read(name))
        after.getinfo(f"ADEChallengeData2016/{_PHOTO}").file_size = size
    with pytest.raises(DataError, match=rf"ADE_train_00000002\.jpg is damaged \(.*{why}"):
        _convert(path, tmp_path / "out")


@pytest.mark.parametrize("level", ["headers", "sample", "labels", "decode"])
def test_how_closely_pairs_are_checked_does_not_change_the_records(sample_zip, tmp_path, level):
    out = _convert(sample_zip, tmp_path / "out", validation=level)
    assert _bytes(out) == _bytes(_convert(sample_zip, tmp_path / "default"))


def test_headers_alone_let_a_wrong_label_pass_and_samples_find_the_first(rewritten, tmp_path):
    first = _MASK.replace("2.png", "1.png")
    with pytest.raises(DataError, match="label value 77"):
        _convert(_spoilt(rewritten, first), tmp_path / "a", validation="sample")
    _convert(_spoilt(rewritten, _MASK), tmp_path / "b", validation="headers")
    _convert(_spoilt(rewritten, _MASK), tmp_path / "c", validation="sample")


def _spoilt(rewritten, name):
    labels = decode_labels(_member(rewritten({}), name), name)
    return rewritten({name: encode_png(np.full_like(labels, 77))})


@pytest.fixture
def own(sample_zip, tmp_path):
    """A description beside its photos and masks; splits can be given other names."""

    def make(train="train", val="val"):
        folder = tmp_path / "own"
        with zipfile.ZipFile(sample_zip) as archive:
            archive.extractall(folder)
        names = {"images": "images", "masks": "annotations"}
        where = {
            split: {kind: f"{name}/{place}/*" for kind, name in names.items()}
            for split, place in ((train, "training"), (val, "validation"))
        }
        classes = list(get_dataset("sample").class_names)
        content = {"classes": classes, "splits": where, "source": "."}
        (folder / "own.yaml").write_text(yaml.safe_dump(content))
        return folder

    return make


def test_records_may_lie_in_the_folder_they_are_made_of(own, monkeypatch, caplog):
    folder = own()
    monkeypatch.chdir(folder)
    flags = {"dataset": "own.yaml", "output_dir": "records"}
    convert.run(flags)
    Path("samples.png").write_text("something else")
    caplog.set_level("INFO")
    convert.run(flags)
    assert "already converted" in caplog.text
    mask = next(Path("ADEChallengeData2016/annotations/training").iterdir())
    mask.write_bytes(encode_png(np.zeros_like(decode_labels(mask.read_bytes(), "m"))))
    with pytest.raises(OutputError, match="the content of --source differs"):
        convert.run(flags)


def test_records_may_lie_beside_the_archive_they_are_made_of(sample_zip, tmp_path, caplog):
    folder = tmp_path / "ADE20K"
    folder.mkdir()
    shutil.copy(sample_zip, folder)
    _convert(folder, folder / "tfrecord")
    caplog.set_level("INFO")
    _convert(folder, folder / "tfrecord")
    assert "already converted" in caplog.text


def test_archives_are_known_by_their_content_and_in_capitals(sample_zip, tmp_path):
    for name in ("download", "OWN.ZIP"):
        (tmp_path / name).mkdir()
        shutil.copy(sample_zip, tmp_path / name / name)
        _convert(tmp_path / name, tmp_path / f"{name}-out")
    assert _bytes(tmp_path / "download-out") == _bytes(tmp_path / "OWN.ZIP-out")


def test_the_archive_of_any_splits_begins_with_what_it_is_of(own, monkeypatch):
    folder = own("Train", "all")
    monkeypatch.chdir(folder)
    convert.run({"dataset": "own.yaml", "output_dir": "records"})
    assert describe_records("records/tfrecords.tar.gz") == describe_records("records") is not None


def test_names_of_splits_can_be_names_of_files(own, monkeypatch):
    monkeypatch.chdir(own("a/b"))
    with pytest.raises(ConfigError, match=r"splits\.a/b"):
        convert.run({"dataset": "own.yaml", "output_dir": "records"})


def test_a_photo_whose_name_is_not_utf_8_is_named(own, monkeypatch):
    monkeypatch.chdir(own())
    for folder in ("images", "annotations"):
        file = min(Path(f"ADEChallengeData2016/{folder}/training").iterdir())
        file.rename(file.with_name(os.fsdecode(b"caf\xe9") + file.suffix))
    with pytest.raises(DataError, match=r"caf\\udce9.*its name is not UTF-8; rename it and its mask"):
        convert.run({"dataset": "own.yaml", "output_dir": "records"})
