"""What goes and what stays, with real locks of other processes, and a kill in the middle."""

import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager

import pytest
from stored import aged, chain, made

from tasks.errors import EntryInUse
from tasks.inventory import is_held, take
from tasks.removal import Removal, Rules, choose, remove
from tasks.store import Identity, Store, held, lock_of, parts, temporary_of

FLOW = """
import sys
from pathlib import Path
from tasks.store import held
with held(Path(sys.argv[1]), lambda: print("waits", flush=True)):
    print("holds", flush=True)
    sys.stdin.read()
"""
STAGE = """
import sys
from pathlib import Path
from filelock import FileLock
with FileLock(Path(sys.argv[1]) / ".lock"):
    print("holds", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


@contextmanager
def another_process(entry, code=FLOW):
    """Holds an entry, or waits for it, until the end of the block."""
    words = [sys.executable, "-c", code, str(entry.folder)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.communicate()


def unfinished(store, days, stage="train", **parameters):
    entry = store.entry(Identity(stage=stage, code_version=1, parameters=parameters, inputs={}))
    entry.prepare()
    entry.folder.mkdir()
    (entry.folder / "model.ckpt-1.index").write_text("half")
    entry.log.write_text("a line\n")
    return aged(entry, days)


def chosen(store, **rules):
    removals = choose(take(store, None), Rules(**rules), time.time())
    return {removal.what.key: removal.reason for removal in removals}


def keys(*entries):
    return {entry.identity.key for entry in entries}


def test_what_is_unfinished_or_broken_goes_when_it_is_old(store):
    made(store, "train", seed=1)
    aged(made(store, "train", seed=2), 1000)
    unfinished(store, 13)
    old = unfinished(store, 15, seed=3)
    broken = made(store, "train", seed=4)
    (broken.folder / "product").unlink()
    assert chosen(store) == {old.identity.key: "unfinished for 15 days"}
    aged(broken, 15)
    assert chosen(store)[broken.identity.key] == "broken for 15 days"
    assert set(chosen(store, older_than=12.5)) > keys(old, broken)
    assert chosen(store, stage="convert") == {}


def test_finished_ones_go_only_when_that_is_asked_for(store):
    runs = [chain(store, seed=seed) for seed in range(4)]
    for days, run in enumerate(runs):
        for entry in run.values():
            aged(entry, 10 * days + 5)
    assert chosen(store) == {}
    own = [keys(run["train"], run["evaluate"], run["report"]) for run in runs]
    assert set(chosen(store, keep_last=2)) == set(chosen(store, unused_for=20)) == own[2] | own[3]
    assert set(chosen(store, keep_last=3, unused_for=10)) == keys(
        *(runs[3][s] for s in ("train", "evaluate", "report"))
    )
    assert set(chosen(store, keep_last=0)) == keys(*(entry for run in runs for entry in run.values()))
    assert set(chosen(store, keep_last=1, stage="train")) == keys(*(run["train"] for run in runs[1:]))


def test_what_was_used_today_stays_whatever_the_number_to_keep(store):
    runs = [chain(store, seed=seed) for seed in range(3)]
    aged(runs[0]["report"], 2)
    assert set(chosen(store, keep_last=0)) == keys(runs[0]["report"])
    assert len(chosen(store, keep_last=0, unused_for=0)) == 2 + 3 * len(runs)


def test_an_entry_is_used_when_something_made_of_it_is(store):
    run = chain(store)
    for entry in run.values():
        aged(entry, 100)
    run["report"].touch()
    assert chosen(store, unused_for=50) == {}
    aged(run["report"], 100)
    order = [removal.what.stage for removal in choose(take(store, None), Rules(unused_for=50), time.time())]
    assert order == ["report", "evaluate", "train", "convert", "fetch"]


def test_what_an_unfinished_training_goes_on_from_stays(store):
    run = chain(store)
    for entry in run.values():
        aged(entry, 100)
    digest = run["convert"].manifest().digest
    begun = store.entry(Identity(stage="train", code_version=1, parameters={}, inputs={"dataset_dir": digest}))
    begun.prepare()
    stays = keys(run["fetch"], run["convert"], begun)
    assert set(chosen(store, unused_for=50)) == keys(*run.values()) - stays
    assert chosen(store, unused_for=50, stage="convert") == {}
    aged(begun, 100)
    assert set(chosen(store, unused_for=50)) == keys(begun, *run.values())


def test_what_a_flow_works_on_stays_with_all_it_was_made_of(store):
    run = chain(store)
    for entry in run.values():
        aged(entry, 100)
    with another_process(run["train"]) as process:
        assert process.stdout.readline() == "holds\n"
        assert set(chosen(store, keep_last=0)) == keys(run["evaluate"], run["report"])
        named = Removal(take(store, None).find(run["train"].identity.key), "named")
        with pytest.raises(EntryInUse, match="somebody works on it"):
            remove(named, mirror=False)
    assert run["train"].manifest() is not None
    remove(named, mirror=False)
    assert not parts(run["train"].folder)


def test_what_a_person_works_on_in_the_folder_stays(store):
    entry = unfinished(store, 100)
    with another_process(entry, STAGE) as process:
        assert process.stdout.readline() == "holds\n"
        aged(entry, 100)
        assert chosen(store) == {}
    assert chosen(store) == {entry.identity.key: "unfinished for 100 days"}


def test_an_entry_that_was_used_since_it_was_chosen_stays(store):
    entry = aged(made(store, "train"), 100)
    (removal,) = choose(take(store, None), Rules(unused_for=50), time.time())
    entry.touch()
    with pytest.raises(EntryInUse, match="used just now"):
        remove(removal, mirror=False)
    assert entry.manifest() is not None


def test_nothing_is_left_of_an_entry_and_nothing_else_is_touched(store):
    entry, other = unfinished(store, 100), made(store, "train", seed=1)
    stage, key = entry.folder.parent, entry.identity.key
    for name in (f"{key}.log.cursor", f"{key}.valohai.json", f".tmp-{key}.json"):
        (stage / name).write_text("{}")
    (stage / f"{key}.valohai").mkdir()
    (stage / f"{key}.valohai" / "model.json").write_text("{}")
    (temporary_of(entry.folder) / "deep").mkdir(parents=True)
    (stage / f"{key}.copy").write_text("a person's")
    aged(entry, 100)
    for removal in choose(take(store, None), Rules(), time.time()):
        remove(removal, mirror=False)
    left = {path.name for path in stage.iterdir()}
    assert left == {other.identity.key, f"{other.identity.key}.json", f"{key}.copy"}


def test_leftovers_go_but_not_those_of_an_entry_that_came_meanwhile(store):
    key = unfinished(store, 100).identity.key
    entry = take(store, None).items[0].entry
    entry.note.unlink()
    orphan = store.root / "train" / f"{'a' * 32}.lock"
    orphan.touch()
    inventory = take(store, None)
    assert chosen_leftovers(inventory) == {entry.folder.name, "a" * 32}
    entry.prepare()
    for removal in choose(inventory, Rules(), time.time()):
        remove(removal, mirror=False)
    assert entry.folder.exists() and entry.log.exists() and take(store, None).items[0].key == key
    assert not orphan.exists()


def chosen_leftovers(inventory):
    return {removal.what.folder.name for removal in choose(inventory, Rules(), time.time())}


def test_young_leftovers_stay_unless_they_are_worth_nothing(store):
    entry = unfinished(store, 1)
    entry.note.unlink()
    temporary_of(entry.folder).mkdir()
    (removal,) = choose(take(store, None), Rules(), time.time())
    assert removal.what.paths == (temporary_of(entry.folder),)


def test_who_waited_for_a_removed_entry_holds_it_alone(store):
    entry = made(store, "train")
    with ExitStack() as stack:
        with held(entry.folder, lambda: None):
            process = stack.enter_context(another_process(entry))
            assert process.stdout.readline() == "waits\n"
            lock_of(entry.folder).unlink()
        assert process.stdout.readline() == "holds\n"
        assert is_held(entry.folder)


def test_an_entry_whose_removal_is_killed_never_looks_finished(store):
    entry = made(store, "train")
    for number in range(3000):
        (entry.folder / f"{number}.jpg").write_text("x")
    command = [sys.executable, "-m", "tasks.store_command", "gc", entry.identity.key, "--yes", f"--store={store.root}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while entry.folder.exists():
            assert time.monotonic() < deadline
        os.kill(process.pid, signal.SIGKILL)
    grave = temporary_of(entry.folder)
    assert len(list(grave.iterdir())) > 0, "it was killed after the end"
    assert store.entry(entry.identity).examine() == (None, "it was not made yet")
    assert take(store, None).items == () or take(store, None).items[0].state == "unfinished"
    subprocess.run([*command[:4], "--older_than=0", "--yes", f"--store={store.root}"], check=True)
    assert list(entry.folder.parent.iterdir()) == []
    # A flow that comes first is not in the way of what is left, either.
    assert made(store, "train").manifest() is not None
