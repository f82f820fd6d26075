import json
import os
import re
from pathlib import Path

import pytest
from stored import aged, chain, finish, made

from deeplab.stage.manifest import describe_output
from tasks.inventory import take
from tasks.store import Identity, Store, parts
from tasks.store_command import main


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return Store.open("deeplab-store")


@pytest.fixture
def run(capsys):
    """Runs the command; returns its status, its lines, and what it says on stderr."""

    def start(*words):
        status = main(words)
        said = capsys.readouterr()
        return status, said.out.splitlines(), said.err

    return start


def rows(lines):
    """The cells of a table's lines, up to the empty one."""
    return [re.split(r"  +", line.strip()) for line in lines[: lines.index("")]]


def test_ls_is_a_line_an_entry_with_what_tells_it_apart(store, run):
    short, long = (chain(store, training_number_of_steps=steps, model_variant="xception_65") for steps in (10, 20))
    aged(short["train"], 3)
    (long["evaluate"].folder / "product").unlink()
    status, lines, _ = run("ls")
    assert status == 0
    table = rows(lines)
    assert table[0] == ["stage", "key", "state", "size", "used"]
    trainings = [row[4:] for row in table if row[0] == "train"]
    network = ["dataset=sample", "model_variant=xception_65"]
    assert trainings == [
        ["0 min", *network, "training_number_of_steps=20"],
        ["3 d", *network, "training_number_of_steps=10"],
    ]
    broken = next(row for row in table if row[2] == "broken")
    assert broken[0] == "evaluate" and broken[-1] == "(product is missing)"
    assert f"checkpoint_dir={long['train'].identity.key[:6]}" in broken
    assert lines[-1].startswith("8 entries, ")


def test_ls_of_a_stage_as_json(store, run):
    entry = chain(store, seed=1)["train"]
    _, lines, _ = run("ls", "--stage=train", "--json")
    (told,) = map(json.loads, lines)
    expected = {"stage": "train", "key": entry.identity.key, "state": "finished", "running": False, "reason": None}
    assert expected.items() <= told.items()
    assert told["parameters"] == {"dataset": "sample", "seed": 1}
    assert told["made_of"] == {"dataset_dir": take(store, None).items[1].key}
    _, lines, _ = run("ls", "--json", "--stage", "train", entry.identity.key[:8])
    assert lines == []
    _, lines, _ = run("ls", entry.identity.key[:8], "--json")
    assert json.loads(lines[0])["manifest"]["outputs"][0]["path"] == "product"


def test_ls_of_a_key_tells_what_it_was_made_of_and_what_of_it(store, run):
    entries = chain(store, seed=1)
    _, lines, _ = run("ls", f"deeplab-store/train/{entries['train'].identity.key}")
    text = "\n".join(lines)
    assert lines[0] == f"train {entries['train'].identity.key}"
    assert re.search(r"here +deeplab-store/train/\w+ \(\d+", text)
    assert re.search(rf"made of\n +dataset_dir +convert {entries['convert'].identity.key[:6]} \(finished\)", text)
    assert re.search(rf"used by\n +evaluate {entries['evaluate'].identity.key[:6]}", text)
    assert re.search(r"parameters\n +dataset +sample\n +seed +1", text)
    assert re.search(r"files\n +product +32 B product", text)
    _, lines, _ = run("ls", entries["fetch"].identity.key)
    assert any("source  address…: of no entry" in line for line in lines)


def test_verify_finds_what_sizes_and_times_hide(store, run):
    entries = chain(store)
    assert run("verify")[:2] == (0, ["5 entries, 160 B read: nothing is broken"])
    path = entries["train"].folder / "product"
    stat = path.stat()
    path.write_text("x" * stat.st_size)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    key = entries["train"].identity.key[:6]
    assert entries["train"].manifest() is not None, "nobody has noticed"
    status, lines, _ = run("verify")
    what = "product has another content; the next run that needs it repeats train, and no other stage"
    assert (status, lines) == (1, [f"train {key}: {what}", "5 entries, 160 B read: 1 broken"])
    assert entries["train"].examine() == (None, "product was changed"), "now the next run notices"
    assert run("verify", entries["convert"].identity.key)[0] == 0
    assert run("verify", "--stage=convert")[:2] == (0, ["1 entry, 32 B read: nothing is broken"])
    (entries["convert"].folder / "product").unlink()
    (entries["evaluate"].folder / "manifest.json").write_text("{")
    status, lines, _ = run("verify")
    assert status == 1 and lines[-1].endswith("3 broken")
    assert any("product is missing; " in line for line in lines)
    assert any("manifest.json is damaged; " in line for line in lines)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file that cannot be read from its start")
def test_verify_goes_on_behind_what_cannot_be_read(store, run):
    entries = chain(store)
    identity = Identity(stage="convert", code_version=1, parameters={}, inputs={})
    empty = finish(store.entry(identity), product="").folder / "product"
    empty.unlink()
    empty.symlink_to("/proc/self/mem")
    (entries["train"].folder / "product").unlink()
    status, lines, _ = run("verify")
    assert status == 1 and lines[-1].endswith("2 broken")
    assert any("product cannot be read (Input/output error)" in line for line in lines)


def test_gc_says_what_would_go_and_removes_it_when_told(store, run):
    old, new = chain(store, seed=1), chain(store, seed=2)
    for stage in ("train", "evaluate", "report"):
        aged(old[stage], 40)
    status, lines, _ = run("gc")
    assert status == 0
    assert lines == [
        "nothing to remove",
        "finished entries stay; --unused_for=DAYS or --keep_last=N tells which of them go",
    ]
    _, lines, _ = run("gc", "--keep_last=1")
    assert [line.split("  ")[0].split()[0] for line in lines[:-1]] == ["report", "evaluate", "train"]
    assert all(line.endswith("not used for 40 days") for line in lines[:-1])
    assert lines[-1].startswith("3 things, ") and lines[-1].endswith(" would go; --yes removes them")
    assert old["train"].manifest() is not None
    _, lines, _ = run("gc", "--keep_last=1", "--yes")
    assert [("removed" in line) for line in lines] == [True, True, True, False]
    assert lines[-1].startswith("3 things, ") and lines[-1].endswith(" freed")
    assert not any(parts(old[stage].folder) for stage in ("train", "evaluate", "report"))
    assert run("verify")[0] == 0
    assert all(entry.manifest() is not None for entry in new.values())


def test_gc_of_a_key_removes_it_whatever_it_is(store, run):
    entries = chain(store)
    key = entries["convert"].identity.key
    assert run("gc", key)[1][0].endswith("  named; made of it: 2")
    assert run("gc", "--yes", key[:8])[0] == 0
    assert [item.stage for item in take(store, None).items] == ["fetch", "train", "evaluate", "report"]


def test_gc_of_a_key_fails_when_a_flow_holds_it(store, run):
    entry = made(store, "train")
    with entry.held(lambda: None):
        status, lines, _ = run("gc", entry.identity.key, "--yes")
    assert status == 1 and lines[0].endswith("stays: somebody works on it")
    assert entry.manifest() is not None


def test_gc_of_a_key_leaves_what_a_flow_reads(store, run):
    entries = chain(store)
    with entries["train"].held(lambda: None):
        status, lines, error = run("gc", entries["convert"].identity.key, "--yes")
    assert (status, lines) == (1, []) and "stays: what somebody works on now is made of it" in error
    assert entries["convert"].manifest() is not None


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["sl"], 2, "unknown verb 'sl'"),
        (["ls", "--stage=trian"], 2, "did you mean train?"),
        (["ls", "abcdef"], 2, "no entry has a key that begins so"),
        (["ls", "--store=nowhere"], 1, "--store=nowhere: there is no such folder"),
        (["ls", "--jsno"], 2, "did you mean --json?"),
        (["verify", "--stage=train", "abc"], 2, "name entries, or give a stage"),
        (["gc", "abc", "--keep_last=1"], 2, "no entry has"),
        (["gc", "--keep_last=-1"], 2, "keep_last"),
        (["gc", "--mirror"], 2, "has no remote place"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line(store, run, words, status, message):
    found, lines, error = run(*words)
    assert (found, lines) == (status, []) and message in error
    assert error.startswith("deeplab-store: ") and error.count("\n") == 1
    assert not Path("nowhere").exists()


def test_verify_tells_a_record_from_what_stages_read(store, run):
    entry = made(store, "train")
    (entry.folder / "metrics.jsonl").write_text("{}")
    record = describe_output(entry.folder, entry.folder / "metrics.jsonl", "record")
    manifest = entry.manifest()
    manifest.model_copy(update={"outputs": (*manifest.outputs, record)}).write(entry.manifest_file)
    (entry.folder / "metrics.jsonl").write_text("[]")
    status, lines, _ = run("verify")
    assert status == 1 and lines[0].endswith("another content; nothing runs again for a record")
    assert entry.manifest() is not None


def test_verify_says_what_it_does_not_look_at(store, run):
    begun = made(store, "train", seed=1)
    begun.invalidate()
    held, whole = made(store, "train", seed=2), made(store, "train", seed=3)
    with held.held(lambda: None):
        status, lines, _ = run("verify")
    assert (status, lines[0]) == (0, "1 entry, 32 B read: nothing is broken")
    assert lines[1].startswith("2 not looked at: ")
    assert run("verify", begun.identity.key, whole.identity.key)[1][1].startswith("1 not looked at: ")


def test_named_entries_are_not_chosen_by_rules_too(store, run):
    key = made(store, "train").identity.key
    assert run("gc", key, "--unused_for=3", "--yes")[0] == 2
    assert take(store, None).items


@pytest.mark.parametrize(("words", "status"), [([], 2), (["--help"], 0), (["gc", "--help"], 0)])
def test_usage_names_verbs_and_flags(run, words, status):
    found, lines, _ = run(*words)
    assert found == status
    for word in ("ls", "verify", "gc", "--older_than", "--unused_for", "--keep_last", "--mirror", "--json", "--store"):
        assert word in "\n".join(lines)
