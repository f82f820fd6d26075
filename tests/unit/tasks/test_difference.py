import pytest
from stored import aged, made

from tasks.difference import why_new
from tasks.store import Identity, Store


@pytest.fixture
def store(tmp_path):
    return Store.open(str(tmp_path / "store"))


BEFORE = {"base_learning_rate": 0.01, "seed": None, "train_crop_size": [513, 513], "fine_tune_batch_norm": True}


def wanted(version=1, inputs="data", **parameters):
    return Identity(
        stage="train", code_version=version, parameters={**BEFORE, **parameters}, inputs={"dataset_dir": inputs}
    )


@pytest.mark.parametrize(
    ("now", "reason"),
    [
        (wanted(base_learning_rate=0.05), "train.base_learning_rate is 0.05 and was 0.01"),
        (wanted(seed=3), "train.seed is 3 and was none"),
        (wanted(train_crop_size=[65, 65]), "train.train_crop_size is 65,65 and was 513,513"),
        (wanted(fine_tune_batch_norm=False), "train.fine_tune_batch_norm is false and was true"),
        (wanted(inputs="others"), "its input dataset_dir is new"),
        (wanted(version=3), "the stage's code changed (1 -> 3)"),
        (
            wanted(2, "others", seed=3),
            "the stage's code changed (1 -> 2), its input dataset_dir is new, train.seed is 3",
        ),
        (wanted(2, "others", seed=3, base_learning_rate=1), "train.base_learning_rate is 1 and was 0.01 and 1 more"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_different_is_named(store, now, reason):
    entry = made(store, "train", {"dataset_dir": "data"}, **BEFORE)
    found = why_new(store, now)
    assert reason in found
    assert found.endswith(f" (compared with {entry.identity.key[:8]})")


def test_compared_with_the_most_similar_entry_and_of_these_with_the_last_used(store):
    far = made(store, "train", {"dataset_dir": "data"}, **{**BEFORE, "base_learning_rate": 1, "seed": 1})
    old = aged(made(store, "train", {"dataset_dir": "data"}, **{**BEFORE, "base_learning_rate": 0.1}), 2)
    new = aged(made(store, "train", {"dataset_dir": "data"}, **{**BEFORE, "base_learning_rate": 0.2}), 1)
    assert new.identity.key[:8] in why_new(store, wanted(base_learning_rate=0.3))
    assert old.identity.key[:8] in why_new(store, Identity(**{**old.identity.model_dump(), "code_version": 2}))
    assert far.identity.key[:8] in why_new(store, wanted(base_learning_rate=1, seed=1, train_crop_size=[1, 1]))


def test_the_first_of_its_stage_is_compared_with_nothing(store):
    made(store, "convert")
    assert why_new(store, wanted()) is None
