"""What a person names: files here, and addresses."""

import os

import pytest
from stored import made

from deeplab.errors import DataError
from tasks.errors import StoreError
from tasks.sources import UserFiles, check_photos, network, photos, valohai_address
from tasks.store import Store


def test_photos_of_one_name_in_two_folders_are_two_photos(tmp_path):
    for day in ("one", "two"):
        (tmp_path / day).mkdir()
        (tmp_path / day / "img.jpg").write_text(f"photo of day {day}")
    before = photos(f"{tmp_path}/*/img.jpg", None)
    (tmp_path / "one" / "img.jpg").write_text("another")
    assert photos(f"{tmp_path}/*/img.jpg", None).digest != before.digest


def test_a_photos_folder_leaves_its_digest_alone(tmp_path):
    digests = set()
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "img.jpg").write_text("photo")
        digests.add(photos(f"{tmp_path / folder}/*.jpg", None).digest)
    assert len(digests) == 1


def test_equal_names_are_not_handed_to_an_execution(tmp_path):
    files = [tmp_path / day / "img.jpg" for day in ("one", "two")]
    with pytest.raises(StoreError, match=r"--images=x/\*: 2 files are called img\.jpg.*give them different names"):
        UserFiles("x/*", files, lambda: "digest", object(), "images").addresses()


def test_a_place_without_photos_is_told_early(tmp_path):
    with pytest.raises(DataError, match="nowhere: no such file or folder; name a photo"):
        check_photos(str(tmp_path / "nowhere"))
    (tmp_path / "readme.txt").touch()
    for place in (tmp_path, tmp_path / "*.jpg"):
        for look in (check_photos, lambda place: photos(place, None)):
            with pytest.raises(DataError, match="no photo there; name a photo"):
                look(str(place))
    (tmp_path / "a.jpg").touch()
    for place in (tmp_path, tmp_path / "*.jpg"):
        check_photos(str(place))
        assert tmp_path / "a.jpg" in photos(str(place), None).files
    (tmp_path / "records").mkdir()
    (tmp_path / "records" / "val-00000-of-00001.tfrecord").touch()
    check_photos(str(tmp_path / "records"))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://host/a.zip", "https://host/a.zip"),
        ("datum://1", "datum://1"),
        ("azure://mine/deep/a.zip", "azure://mine/deep/a.zip"),
        ("az://deep/a.zip", "azure://lab/deep/a.zip"),
        ("abfss://deep@mine.dfs.core.windows.net/x/a.zip", "azure://mine/deep/x/a.zip"),
    ],
)
def test_addresses_are_given_as_valohai_writes_them(monkeypatch, address, expected):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "lab")
    assert valohai_address(address) == expected


def test_what_valohai_cannot_open_is_refused():
    with pytest.raises(StoreError, match=r"hf://a/b: Valohai opens azure://, .*give such a one, or let the"):
        valohai_address("hf://a/b?token=hidden")


def test_a_folder_of_exports_is_the_last_whole_one(tmp_path):
    store = Store.open(str(tmp_path))
    entries = [made(store, "export", number=number) for number in range(4)]
    for age, entry in zip((30, 20, 10, 0), entries, strict=True):
        os.utime(entry.manifest_file, (1_000_000 - age,) * 2)
    entries[2].output.write_text("damaged")
    entries[3].manifest_file.write_text("{")
    model, _ = network(str(tmp_path / "export"), None, "model")
    assert model.place == str(entries[1].output)


def test_a_folder_that_holds_no_exports_is_left_as_it_is(tmp_path):
    (tmp_path / "model.ckpt-1.index").touch()
    (tmp_path / "export").mkdir()
    for place in (tmp_path, tmp_path / "export"):
        assert network(str(place), None, "model")[0].place == str(place)
