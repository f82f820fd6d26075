import json
import os
from pathlib import Path

import pytest
from stored import finish

from deeplab.config import validate
from deeplab.config.stages import ArchiveConfig
from deeplab.stage import OutputFolder
from tasks.errors import StoreError
from tasks.store import Identity, Store, differs_only_in

IDENTITY = Identity(stage="convert", code_version=1, parameters={"num_shards": 4}, inputs={"source": "abc"})


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


@pytest.mark.parametrize(
    "change",
    [{"stage": "train"}, {"code_version": 2}, {"parameters": {"num_shards": 5}}, {"inputs": {"source": "abd"}}],
    ids=lambda change: next(iter(change)),
)
def test_everything_that_decides_the_products_changes_the_key(change):
    assert IDENTITY.model_copy(update=change).key != IDENTITY.key


def test_key_is_stable_short_and_free_of_order():
    one = IDENTITY.model_copy(update={"parameters": {"a": 1, "b": 2}})
    other = IDENTITY.model_copy(update={"parameters": {"b": 2, "a": 1}})
    assert one.key == other.key
    assert len(one.key) == 32
    assert set(one.key) <= set("0123456789abcdef")
    # Keys name folders that exist on people's disks: a change here makes every finished run start over.
    assert IDENTITY.key == "efad55cac0ba24e204b8cd8da134b57c"


def test_finished_entry_counts_while_whole(store):
    entry = finish(store.entry(IDENTITY), a="one", b="two")
    assert entry.examine()[1] is None
    assert entry.manifest().stage == "convert"
    assert json.loads(entry.folder.with_name(f"{IDENTITY.key}.json").read_text()) == IDENTITY.model_dump()


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda folder: (folder / "a").unlink(), "a is missing"),
        (lambda folder: (folder / "a").write_text("longer"), "a has 6 bytes instead of 3"),
        (lambda folder: (folder / "b").write_text("TWO"), "b was changed"),
        (lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json is damaged"),
        (lambda folder: (folder / "manifest.json").unlink(), "it is unfinished"),
    ],
)
def test_damaged_entry_names_the_file(store, damage, reason):
    entry = finish(store.entry(IDENTITY), a="one", b="two")
    os.utime(entry.folder / "b", ns=(1, 1))
    assert entry.manifest() is not None, "a new time of the same content is no damage"
    damage(entry.folder)
    assert entry.examine() == (None, reason)


def test_content_changed_behind_size_and_time_is_found_on_demand(store):
    entry = finish(store.entry(IDENTITY), a="one")
    stat = (entry.folder / "a").stat()
    (entry.folder / "a").write_text("eno")
    os.utime(entry.folder / "a", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert entry.examine()[1] is None
    assert entry.examine(deep=True) == (None, "a has another content")


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("{"), Path.unlink], ids=["unreadable", "missing"])
def test_stage_begins_anew_where_nothing_tells_what_is_there(store, spoil):
    entry = finish(store.entry(IDENTITY), a="one")
    spoil(entry.folder / "manifest.json")
    entry.prepare()
    config = validate(ArchiveConfig, {"train_logdir": "-", "output_dir": str(entry.folder)})
    with OutputFolder(entry.folder, "archive", 1, config, {}) as folder:
        (entry.folder / "half").touch()
        assert not folder.finished
    entry.prepare()
    assert (entry.folder / "half").exists(), "unfinished work is gone on with"


def test_a_training_without_its_manifest_keeps_its_checkpoints(store):
    entry = finish(store.entry(IDENTITY.model_copy(update={"stage": "train"})), checkpoint="one")
    entry.manifest_file.unlink()
    entry.prepare()
    assert (entry.folder / "checkpoint").exists()


def test_new_entry_was_not_made_yet(store):
    assert store.entry(IDENTITY).examine() == (None, "it was not made yet")


def test_entries_are_those_with_a_note_of_their_own(store):
    whole = finish(store.entry(IDENTITY), a="one")
    (store.root / "convert" / "notes.json").write_text("not of the store")
    (store.root / "convert" / f"{'0' * 32}.json").write_text(whole.note.read_text())
    assert list(store.entries("convert")) == [whole]


def test_held_entry_makes_another_wait(store, tmp_path):
    entry = store.entry(IDENTITY)
    said = []

    def interrupt():
        said.append("waiting")
        raise KeyboardInterrupt

    with entry.held(lambda: said.append("never")):
        with pytest.raises(KeyboardInterrupt), store.entry(IDENTITY).held(interrupt):
            pass
    with entry.held(lambda: said.append("never")):
        pass
    assert said == ["waiting"]


def test_file_url_is_a_path(tmp_path):
    assert Store.open(f"file://{tmp_path}/store").root == tmp_path / "store"


def test_file_is_no_store(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="not a folder"):
        Store.open(str(tmp_path / "file"))


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ({"steps": 1, "a": 1}, {"steps": 2, "a": 1}, True),
        ({"steps": 1, "a": 1}, {"steps": 1, "a": 1}, False),
        ({"steps": 1, "a": 1}, {"steps": 2, "a": 2}, False),
        ({"steps": 1}, {"steps": 2, "a": 2}, False),
    ],
)
def test_differs_only_in(here, there, expected):
    assert differs_only_in("steps", here, there) is expected
