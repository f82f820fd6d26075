import io
from pathlib import Path

import pytest
from PIL import Image

from deeplab.data.tfrecord import frame, serialise_example
from deeplab.errors import DataError
from deeplab.inference.photos import photo_count, read_photos


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, size in (("b.jpg", (8, 6)), ("a.png", (5, 7)), ("more/a.jpg", (4, 4))):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", size).save(path)
    (tmp_path / "notes.txt").write_text("x")
    return tmp_path


def test_a_folder_with_unique_names(folder: Path) -> None:
    photos = {name: photo.size for name, photo in read_photos(str(folder), "val", None)}
    assert photos == {"a": (5, 7), "b": (8, 6), "a_2": (4, 4)}
    assert photo_count(str(folder), "val", 2) == 2


def test_a_glob_and_a_file(folder: Path) -> None:
    assert [name for name, _ in read_photos(f"{folder}/*.jpg", "val", None)] == ["b"]
    assert [name for name, _ in read_photos(f"{folder}/b.jpg", "val", None)] == ["b"]


def test_a_turned_photo_is_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned by 90 degrees
    Image.new("RGB", (8, 4)).save(tmp_path / "a.jpg", exif=exif)
    assert next(read_photos(str(tmp_path), "val", None))[1].size == (4, 8)


def test_records_without_a_name_are_called_after_their_place(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, "PNG")
    named = {"image/encoded": buffer.getvalue(), "image/filename": b"a/b.png"}
    records = [serialise_example(example) for example in (named, {**named, "image/filename": b""})]
    (tmp_path / "val-00000-of-00001.tfrecord").write_bytes(b"".join(frame(record) for record in records))
    assert [name for name, _ in read_photos(str(tmp_path), "val", None)] == ["b", "val-00000-of-00001-1"]
    assert (photo_count(str(tmp_path), "val", None), photo_count(str(tmp_path), "val", 1)) == (2, 1)


def test_a_photo_too_large_to_be_true(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (40, 40)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"a\.png: not a readable image"):
        next(read_photos(str(tmp_path), "val", None))


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no photo there"):
        next(read_photos(str(tmp_path), "val", None))


def test_a_file_that_is_no_image(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("not a photo")
    with pytest.raises(DataError, match=r"a\.jpg: not a readable image"):
        next(read_photos(str(tmp_path), "val", None))
