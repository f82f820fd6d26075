import pytest

from deeplab.data.packing import pack
from deeplab.data.shards import list_shards, open_data_folder, shard_name
from deeplab.errors import DataError


def _shards(folder, split, count=2, suffix=".tfrecord"):
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{split}-{index:05d}-of-{count:05d}{suffix}" for index in range(count)]
    for name in names:
        (folder / name).write_bytes(name.encode())
    return names


def test_names_are_the_originals():
    assert shard_name("train", 0, 4) == "train-00000-of-00004.tfrecord"


def test_a_split_is_listed_sorted_and_alone(tmp_path):
    names = _shards(tmp_path, "train", 3)
    _shards(tmp_path, "train_fine")
    (tmp_path / ".tmp-train-00000-of-00003.tfrecord").touch()
    (tmp_path / "train-folder").mkdir()
    assert [path.name for path in list_shards(tmp_path, "train")] == names


def test_names_without_a_count_are_taken_as_the_original_takes_them(tmp_path):
    (tmp_path / "val-x").touch()
    assert list_shards(tmp_path, "val") == [tmp_path / "val-x"]


def test_a_missing_split_names_those_there_are(tmp_path):
    _shards(tmp_path, "train")
    _shards(tmp_path, "val")
    with pytest.raises(DataError, match=r"no shards named test-\*; the splits here are train, val"):
        list_shards(tmp_path, "test")


def test_a_folder_without_shards_says_so(tmp_path):
    with pytest.raises(DataError, match="no shards at all; run convert"):
        list_shards(tmp_path, "train")


def test_a_missing_shard_is_named(tmp_path):
    names = _shards(tmp_path, "train", 3)
    (tmp_path / names[1]).unlink()
    with pytest.raises(DataError, match=r"train-00001-of-00003\.tfrecord is missing"):
        list_shards(tmp_path, "train")


def test_shards_one_level_down(tmp_path):
    names = _shards(tmp_path / "tfrecord", "val")
    assert [path.name for path in list_shards(tmp_path, "val")] == names
    with pytest.raises(DataError, match="splits here are val"):
        list_shards(tmp_path, "train")
    _shards(tmp_path / "other", "val")
    with pytest.raises(DataError, match="several folders: other, tfrecord"):
        list_shards(tmp_path, "val")


def test_a_folder_is_opened_as_it_is(tmp_path):
    with open_data_folder(str(tmp_path)) as folder:
        assert folder == tmp_path


@pytest.mark.parametrize("inside_a_folder", [False, True])
def test_an_archive_is_unpacked_while_it_is_used(tmp_path, inside_a_folder):
    names = _shards(tmp_path / "in", "train")
    archive = tmp_path / "packed" / "tfrecords.tar.gz"
    archive.parent.mkdir()
    pack((tmp_path / "in").iterdir(), archive)
    with open_data_folder(archive.parent if inside_a_folder else archive) as folder:
        assert [path.name for path in list_shards(folder, "train")] == names
        assert folder != archive.parent
    assert not folder.exists()


def test_an_archive_is_removed_after_an_error(tmp_path):
    pack([], tmp_path / "x.tar.gz")
    with pytest.raises(RuntimeError), open_data_folder(tmp_path / "x.tar.gz") as folder:
        raise RuntimeError
    assert not folder.exists()


def test_what_is_no_data_folder(tmp_path):
    with pytest.raises(DataError, match="no such folder or archive"), open_data_folder(tmp_path / "none"):
        pass
    (tmp_path / "x.zip").touch()
    with pytest.raises(DataError, match="neither a folder nor"), open_data_folder(tmp_path / "x.zip"):
        pass


def test_a_split_whose_name_begins_like_another_is_apart(tmp_path):
    for split in ("train", "train-extra"):
        (tmp_path / shard_name(split, 0, 1)).touch()
    for split in ("train", "train-extra"):
        assert [shard.name for shard in list_shards(tmp_path, split)] == [shard_name(split, 0, 1)]


def test_an_archive_that_was_fetched_is_a_data_folder(tmp_path):
    _shards(tmp_path / "in", "train")
    (tmp_path / "data").mkdir()
    pack((tmp_path / "in").iterdir(), tmp_path / "data" / "tfrecords.tar.gz")
    (tmp_path / "data" / "manifest.json").write_text("{}")
    with open_data_folder(tmp_path / "data") as folder:
        assert list_shards(folder, "train")
