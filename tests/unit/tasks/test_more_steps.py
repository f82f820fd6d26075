"""More steps start from a copy of the finished training that differs in nothing else."""

import pytest
from stored import finish

from tasks.archive import archive_call
from tasks.result import StageResult
from tasks.stage import Site
from tasks.store import Identity, Store
from tasks.train import _addresses_of_fewer_steps, copy_training_state, shorter_training


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path))


def training(steps, inputs="data", version=1, **parameters):
    values = {"training_number_of_steps": steps, "seed": 0, **parameters}
    return Identity(stage="train", code_version=version, parameters=values, inputs={"dataset_dir": inputs})


def finished(store, identity):
    steps = identity.parameters["training_number_of_steps"]
    files = {
        "checkpoint": f'model_checkpoint_path: "model.ckpt-{steps}"\nall_model_checkpoint_paths: "model.ckpt-1"\n',
        "model.ckpt-1.index": "old",
        f"model.ckpt-{steps}.index": "index",
        f"model.ckpt-{steps}.data-00000-of-00001": "values",
        f"model.ckpt-{steps}0.index": "not the last",
        "model.json": "{}",
        "metrics.jsonl": '{"step": 1}\n',
        "events.out.tfevents": "events",
    }
    return finish(store.entry(identity), **files)


def test_the_longest_shorter_training_is_found(store):
    finished(store, training(10))
    best = finished(store, training(20))
    finished(store, training(40))
    assert shorter_training(Site(store), store.entry(training(30))).entry == best


@pytest.mark.parametrize(
    "other",
    [
        training(10, seed=1),
        training(10, inputs="other data"),
        training(10, version=2),
        training(30),
        training(50),
    ],
)
def test_any_other_difference_rules_a_training_out(store, other):
    finished(store, other)
    assert shorter_training(Site(store), store.entry(training(30))) is None


def test_damaged_training_is_not_a_start(store):
    entry = finished(store, training(10))
    (entry.folder / "model.json").unlink()
    assert shorter_training(Site(store), store.entry(training(30))) is None


def test_copy_holds_the_last_checkpoint_and_nothing_else(store, tmp_path):
    source = finished(store, training(10)).folder
    target = tmp_path / "new"
    stale = tmp_path / ".tmp-new"
    stale.mkdir()
    (stale / "half").touch()
    copy_training_state(source, target)
    assert sorted(path.name for path in target.iterdir()) == [
        "checkpoint",
        "metrics.jsonl",
        "model.ckpt-10.data-00000-of-00001",
        "model.ckpt-10.index",
        "model.json",
    ]
    assert 'model.ckpt-1"' not in (target / "checkpoint").read_text()
    assert not stale.exists()


def test_copy_cut_short_leaves_no_target(store, tmp_path, monkeypatch):
    source = finished(store, training(10)).folder

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr("shutil.copy2", fail)
    with pytest.raises(OSError, match="disk full"):
        copy_training_state(source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("packed", [False, True])
def test_execution_does_not_go_on_from_what_only_this_machine_can_read(store, packed, monkeypatch):
    monkeypatch.setattr("tasks.train._tell", lambda earlier: pytest.fail(f"told that it goes on from {earlier.place}"))
    entry = finished(store, training(10))
    if packed:
        made = StageResult(entry, entry.manifest(), reused=True)
        finish(store.entry(archive_call(made).identity()), **{"checkpoints.tar.gz": "packed"})
    assert _addresses_of_fewer_steps(Site(store), store.entry(training(30))) == []
