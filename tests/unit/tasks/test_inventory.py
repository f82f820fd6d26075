import pytest
from stored import aged, chain, finish, made

from deeplab.errors import ConfigError
from tasks.inventory import take
from tasks.store import Identity, Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


def states(store):
    return {item.key: (item.state, item.reason) for item in take(store, None).items}


def test_stages_come_in_the_order_of_a_run_and_the_last_used_first(store):
    old, new = chain(store, seed=1), chain(store, seed=2)
    aged(old["train"], 3)
    items = take(store, None).items
    assert list(dict.fromkeys(item.stage for item in items)) == ["fetch", "convert", "train", "evaluate", "report"]
    trainings = [item.key for item in items if item.stage == "train"]
    assert trainings == [new["train"].identity.key, old["train"].identity.key]


def test_state_names_the_file(store):
    whole, small, gone, torn = (made(store, "train", seed=seed) for seed in range(4))
    (small.folder / "product").write_text("x")
    (gone.folder / "product").unlink()
    torn.manifest_file.write_text("{")
    begun = store.entry(Identity(stage="train", code_version=1, parameters={}, inputs={}))
    begun.prepare()
    assert states(store) == {
        whole.identity.key: ("finished", None),
        small.identity.key: ("broken", "product has 1 bytes instead of 32"),
        gone.identity.key: ("broken", "product is missing"),
        torn.identity.key: ("broken", "manifest.json is damaged"),
        begun.identity.key: ("unfinished", None),
    }


def test_graph_is_an_entry_whose_output_is_a_file(store):
    graph = made(store, "export")
    assert states(store) == {graph.identity.key: ("finished", None)}


def test_inputs_lead_to_the_entries_that_made_them(store):
    entries = chain(store)
    inventory = take(store, None)
    items = {item.stage: item for item in inventory.items}
    assert inventory.sources(items["fetch"]) == {"source": None}
    assert inventory.sources(items["evaluate"]) == {"dataset_dir": items["convert"], "checkpoint_dir": items["train"]}
    assert inventory.sources(items["report"]) == {"evaluate": items["evaluate"]}
    assert set(inventory.used_by(items["convert"])) == {items["train"], items["evaluate"]}
    assert inventory.ancestors([items["report"]]) == set(items.values()) - {items["report"]}
    (entries["convert"].folder / "product").unlink()
    assert take(store, None).sources(items["train"])["dataset_dir"].state == "broken"


def test_of_equal_products_the_entry_that_was_used_last_counts(store):
    def shards(seed):
        return store.entry(Identity(stage="convert", code_version=1, parameters={"seed": seed}, inputs={}))

    old, new = (finish(shards(seed), product="the same") for seed in (1, 2))
    aged(old, 3)
    made(store, "train", {"dataset_dir": old})
    inventory = take(store, None)
    assert inventory.sources(inventory.items[-1])["dataset_dir"].key == new.identity.key


def test_size_is_that_of_everything_beside_the_entry(store):
    entry = made(store, "train")
    (entry.folder / "deep").mkdir()
    (entry.folder / "deep" / "file").write_bytes(b"x" * 1000)
    before = take(store, None).items[0].size
    entry.log.write_bytes(b"x" * 500)
    assert take(store, None).items[0].size == before + 500 > 1500


def test_leftovers_and_what_cannot_be_said_anything_about(store):
    entry = made(store, "train")
    stage = entry.folder.parent
    (stage / f".tmp-{entry.identity.key}").mkdir()
    (stage / f"{'a' * 32}.log").write_text("a log without its entry")
    (stage / f"{'b' * 32}.lock").touch()
    (stage / f"{'c' * 32}.json").write_text("{}")
    (stage / f"{entry.identity.key}.copy").mkdir()
    (stage / "notes.txt").write_text("a person's")
    (store.root / "train" / f"{'d' * 32}").mkdir()
    (store.root / "train" / f"{'d' * 32}" / "manifest.json").write_text("of another version")
    inventory = take(store, None)
    assert [item.key for item in inventory.items] == [entry.identity.key]
    left = {left.folder.name: ([path.name for path in left.paths], left.temporary) for left in inventory.leftovers}
    assert left == {
        entry.identity.key: ([f".tmp-{entry.identity.key}"], True),
        "a" * 32: ([f"{'a' * 32}.log"], False),
        "b" * 32: ([f"{'b' * 32}.lock"], True),
    }
    assert [folder.name for folder in inventory.unknown] == ["c" * 32, "d" * 32]


def test_use_is_when_a_flow_touched_it_last(store):
    entry = aged(made(store, "train"), 30)
    old = take(store, None).items[0].used
    entry.touch()
    assert take(store, None).items[0].used - old == pytest.approx(30 * 86400, abs=60)
    entry.note.unlink()
    entry.touch()
    assert take(store, None).items[0].key == entry.identity.key


def test_key_is_found_by_its_beginning_and_by_its_path(store):
    entries = [made(store, "train", seed=seed) for seed in range(40)]
    inventory = take(store, None)
    key = entries[0].identity.key
    paths = (f"store/train/{key}/", f"train/{key}/graph.pb", f"{key}.log")
    for word in (key, key[:8], *paths, inventory.short(inventory.find(key))):
        assert inventory.find(word).key == key
    twins = next(item.key[:1] for item in inventory.items if sum(o.key[0] == item.key[0] for o in inventory.items) > 1)
    with pytest.raises(ConfigError, match="keys begin so"):
        inventory.find(twins)
    for word in ("nothing", "", "/"):
        with pytest.raises(ConfigError, match="no entry has a key that begins so"):
            inventory.find(word)
