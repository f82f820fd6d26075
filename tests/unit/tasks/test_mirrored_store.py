"""The command on a store in a real blob service, with a working copy here."""

import json
import os
import shutil
import time

import pytest
from stored import aged, chain, made

from tasks.errors import StoreError
from tasks.inventory import take
from tasks.places import open_store
from tasks.stage import Site, _find
from tasks.store import parts
from tasks.store_command import main
from tests.azurite import needs_azurite

pytestmark = needs_azurite


@pytest.fixture
def url(azurite, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AZURE_STORAGE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.connection_string)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return f"az://{azurite.create_container()}/store"


@pytest.fixture
def pushed(url):
    """A run here and in the mirror, by what a flow does; its entries."""
    store, mirror = open_store(url)
    entries = chain(store, seed=1)
    for entry in entries.values():
        mirror.push(entry, entry.manifest())
    return entries


@pytest.fixture
def run(capsys, url):
    def start(*words):
        status = main([*words, f"--store={url}"])
        said = capsys.readouterr()
        assert said.err == ""
        return status, said.out.splitlines()

    return start


def states(url):
    return {item.stage: item.state for item in take(*open_store(url)).items}


def blobs(url):
    return [name for _, mirror in [open_store(url)] for found in mirror.survey() for name in found.files]


def forget(entry):
    for path in parts(entry.folder):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def test_ls_knows_what_is_only_there(pushed, run, url):
    forget(pushed["train"])
    shutil.rmtree(pushed["convert"].folder)
    assert states(url) == {stage: "elsewhere" if stage in ("train", "convert") else "finished" for stage in pushed}
    _, lines = run("ls", "--json")
    told = {row["stage"]: row for row in map(json.loads, lines)}
    assert told["train"]["bytes"] == 0 and told["train"]["mirror_bytes"] > 32
    assert told["evaluate"]["made_of"]["checkpoint_dir"] == pushed["train"].identity.key
    _, lines = run("ls")
    assert any(line.startswith("train ") and line.endswith("(mirror)") for line in lines)
    assert lines[-1].startswith("5 entries, ") and lines[-1].endswith(" in the mirror")


def test_verify_compares_sizes_and_etags_there(pushed, run, url, azurite):
    container = url.split("/")[2]
    assert run("verify")[0] == 0
    blob = f"store/train/{pushed['train'].identity.key}/product"
    azurite.upload(container, blob, b"x" * 32)
    status, lines = run("verify")
    assert status == 1
    assert lines[0].endswith("was changed; it is brought there again by the next run that uses it")
    shutil.rmtree(pushed["train"].folder)
    status, lines = run("verify")
    assert status == 1 and lines[0].endswith(
        "was changed; the next run that needs it repeats train, and no other stage"
    )
    assert states(url)["train"] == "broken"


def test_what_is_broken_here_and_whole_there_comes_again(pushed, run):
    (pushed["convert"].folder / "product").write_text("x" * 32)
    status, lines = run("verify")
    assert status == 1
    assert lines[0].endswith("product has another content; it is brought here again when a run needs it")


def test_a_copy_that_is_damaged_there_is_brought_there_again(pushed, url, azurite):
    store, mirror = open_store(url)
    entry = pushed["train"]
    azurite.upload(url.split("/")[2], f"store/train/{entry.identity.key}/product", b"changed")
    assert mirror.find(entry).damage() is not None
    found, _ = _find(Site(store, mirror), entry)
    assert [copy.damage() for copy in found.copies] == [None]
    assert found.addresses()


def test_gc_leaves_the_mirror_alone_unless_told(pushed, run, url):
    everything = sorted(blobs(url))
    status, lines = run("gc", "--keep_last=0", "--unused_for=0", "--yes")
    assert status == 0 and lines[-1].startswith("5 things, ")
    store, _ = open_store(url)
    assert not [path for path in store.root.rglob("*") if path.is_file()]
    assert sorted(blobs(url)) == everything
    assert set(states(url).values()) == {"elsewhere"}
    assert run("gc", "--keep_last=0", "--unused_for=0")[1] == ["nothing to remove"]
    status, lines = run("gc", "--unused_for=0", "--mirror", "--yes")
    assert lines[-1].startswith("5 things, ") and not lines[-1].startswith("5 things, 0 B")
    assert blobs(url) == []


def test_what_was_not_brought_there_to_its_end_goes_when_it_is_old(pushed, run, url, azurite):
    azurite.upload(url.split("/")[2], f"store/train/{'a' * 32}/product", b"half")
    azurite.upload(url.split("/")[2], f"store/uploads/{'b' * 32}/photo.jpg", b"a person's")
    assert run("gc", "--mirror")[1][0] == "nothing to remove"
    status, lines = run("gc", "--mirror", "--older_than=0", "--yes")
    assert (status, lines[0]) == (0, "train aaaaaa  4 B  removed: left over in the mirror")
    assert sorted(name for name in blobs(url) if "a" * 32 in name) == []


def test_use_counts_wherever_the_entry_lies(pushed, url):
    store, mirror = open_store(url)
    for entry in pushed.values():
        aged(entry, 50)
    there = {found.stage: found.used for found in mirror.survey()}
    assert all(time.time() - item.used < 3600 for item in take(store, mirror).items), "brought there just now"
    time.sleep(1.1)
    mirror.find(pushed["train"]).touch()
    found = {found.stage: found.used for found in mirror.survey()}
    assert {stage for stage in found if found[stage] > there[stage]} == {"train"}
    assert mirror.find(pushed["train"]).damage() is None


def test_who_may_not_write_there_may_read(url, azurite, monkeypatch):
    store, mirror = open_store(url)
    entry = made(store, "train")
    mirror.push(entry, entry.manifest())
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", azurite.reading_connection_string)
    _, mirror = open_store(url)
    copy = mirror.find(entry)
    with pytest.raises(StoreError):
        mirror.note_use(entry)
    copy.touch()
    assert copy.damage() is None
