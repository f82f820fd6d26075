import sys
from pathlib import Path

import pytest
from stored import finish

from deeplab.config import CONFIGS, ModelDescription, TrainingConfig, validate
from deeplab.errors import ConfigError, DataError
from deeplab.stage.versions import CODE_VERSIONS
from tasks.call import OUTPUTS, StageCall, flag_text
from tasks.errors import StoreError
from tasks.mirror import Mirror
from tasks.result import StageResult, shown
from tasks.sources import Address, checkpoint
from tasks.stage import Site, _find, _reason
from tasks.store import Identity, Store

TRAIN = {"dataset": "sample"}
RECORDS = Address("data", "digest")


def key(values, records=RECORDS, **more):
    return StageCall("train", values, TRAIN, {"dataset_dir": records, **more}).identity().key


def test_tables_know_every_stage():
    assert set(OUTPUTS) == set(CONFIGS) == set(CODE_VERSIONS)
    for stage, (flag, _) in OUTPUTS.items():
        assert flag in CONFIGS[stage].model_fields


@pytest.mark.parametrize(
    "values",
    [
        {"log_steps": 1},
        {"save_interval_secs": 5},
        {"save_summaries_images": True},
        {"profile_logdir": "profile"},
        {"tf_initial_checkpoint": "the/content/is/an/input"},
        {"training_number_of_steps": 30000},
        {"train_crop_size": [513, 513]},
    ],
    ids=lambda values: next(iter(values)),
)
def test_paths_logging_and_defaults_leave_the_key_alone(values):
    assert key(values) == key({})


def test_folders_leave_the_key_alone():
    assert key({}, Address("elsewhere", "digest")) == key({})


@pytest.mark.parametrize(
    "values", [{"seed": 1}, {"train_batch_size": 4}, {"train_crop_size": "65,65"}, {"atrous_rates": [6, 12, 18]}]
)
def test_what_decides_the_weights_changes_the_key(values):
    assert key(values) != key({})


def test_content_of_the_input_changes_the_key():
    assert key({}, Address("data", "a")) != key({}, Address("data", "b"))
    initial = Address("checkpoint", "c")
    assert key({}, tf_initial_checkpoint=initial) not in {key({}), key({"tf_initial_checkpoint": "checkpoint"})}


def test_file_of_a_dense_prediction_cell_counts_by_content(tmp_path):
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    cell = '[{"op": "conv", "input": -1, "kernel": %d}]'
    one.write_text(cell % 3)
    other.write_text(cell % 3)
    assert key({"dense_prediction_cell_json": str(one)}) == key({"dense_prediction_cell_json": str(other)})
    other.write_text(cell % 1)
    assert key({"dense_prediction_cell_json": str(one)}) != key({"dense_prediction_cell_json": str(other)})


def test_description_supplies_what_nobody_gave():
    training = validate(TrainingConfig, {"dataset_dir": "-", "train_logdir": "-", "output_stride": 32})
    description = ModelDescription.of(training, (65, 65), 21)
    inputs = {"checkpoint_path": Address("run", "digest")}
    supplied = StageCall("export", {}, {}, inputs, description).identity()
    assert supplied.parameters["output_stride"] == 32
    assert supplied.key == StageCall("export", {"output_stride": 32}, {}, inputs, description).identity().key
    assert supplied.key != StageCall("export", {"output_stride": 16}, {}, inputs, description).identity().key


def test_contradiction_of_the_checkpoint_is_refused_before_the_stage():
    training = validate(TrainingConfig, {"dataset_dir": "-", "train_logdir": "-"})
    description = ModelDescription.of(training, (65, 65), 21)
    with pytest.raises(ConfigError, match="contradicts the checkpoint"):
        StageCall("export", {"num_classes": 5}, {"checkpoint_path": "-"}, {}, description).identity()


def test_command_writes_flags_as_a_person_would():
    values = {"train_crop_size": (129, 129), "fine_tune_batch_norm": False, "base_learning_rate": 1e-05, "seed": None}
    call = StageCall("train", values, inputs={"dataset_dir": RECORDS})
    assert call.command(Path("out")) == [
        sys.executable,
        "-m",
        "deeplab",
        "train",
        "--train_crop_size=129,129",
        "--fine_tune_batch_norm=false",
        "--base_learning_rate=1e-05",
        "--dataset_dir=data",
        "--train_logdir=out",
    ]


def test_flag_text():
    assert [flag_text(value) for value in (True, (1.0, 1.5), [6], "a b", 3)] == ["true", "1.0,1.5", "6", "a b", "3"]


@pytest.mark.parametrize(
    ("status", "line", "expected"),
    [
        (1, "deeplab train: no records", "no records"),
        (1, "ValueError: odd", "ValueError: odd"),
        (3, "", "ended with status 3"),
        (143, "stopped on request", "was told to stop"),
        (-9, "", "memory"),
        (-11, "", "ended by signal 11"),
    ],
)
def test_reason_of_a_failure(status, line, expected):
    assert expected in _reason("train", status, line)


def test_shown_is_relative_below_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert shown(tmp_path / "a" / "b") == "a/b"
    assert shown(Path("/elsewhere/b")) == "/elsewhere/b"


def test_checkpoint_by_its_prefix_and_nothing(tmp_path):
    (tmp_path / "model.ckpt-5.index").write_text("index")
    (tmp_path / "model.ckpt-5.data-00000-of-00001").write_text("values")
    (tmp_path / "model.ckpt-50.index").write_text("another")
    found = checkpoint(str(tmp_path / "model.ckpt-5"), None)
    assert [path.name for path in found.files] == ["model.ckpt-5.data-00000-of-00001", "model.ckpt-5.index"]
    (tmp_path / "model.ckpt-50.index").write_text("changed")
    assert checkpoint(str(tmp_path / "model.ckpt-5"), None) == found
    (tmp_path / "model.ckpt-5.index").write_text("changed")
    assert checkpoint(str(tmp_path / "model.ckpt-5"), None).digest != found.digest
    with pytest.raises(DataError, match="no such file"):
        checkpoint(str(tmp_path / "missing"), None)


def test_what_somebody_else_trained_under_the_same_key_is_no_copy(tmp_path):
    """Two machines get different weights: a later stage would measure one training and say that it was the other."""
    store, mirror = Store.open(str(tmp_path / "here")), Mirror("memory://box/store")
    identity = Identity(stage="train", code_version=1, parameters={}, inputs={})
    theirs = finish(Store.open(str(tmp_path / "there")).entry(identity), weights="theirs")
    mirror.push(theirs, theirs.manifest())
    ours = finish(store.entry(identity), weights="ours")
    found, _ = _find(Site(store, mirror), ours)
    assert [copy.manifest.digest for copy in found.copies] == [found.digest] == [ours.manifest().digest]


def test_error_of_what_only_this_machine_has_names_no_flag_that_is_not_there(tmp_path):
    entry = finish(
        Store.open(str(tmp_path)).entry(Identity(stage="archive", code_version=1, parameters={}, inputs={})), a="one"
    )
    with pytest.raises(StoreError, match=r"made on this machine.*--store=az://.*deeplab-store gc [0-9a-f]{12} --yes"):
        StageResult(entry, entry.manifest(), True).addresses()
