"""Train, from scratch or on from a finished training of fewer steps."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from tasks.artifacts import LossCurve, ProgressBar
from tasks.stage import StageCall, StageResult, checkpoint_digest, run_stage, shown
from tasks.store import Entry, Store, differs_only_in

_STEPS = "training_number_of_steps"
_STATE_FILE = "checkpoint"


@task(persist_result=False)
def train(store: Store, values: Mapping[str, Any], dataset: str, shards: StageResult) -> StageResult:
    """Train a network.

    Args:
        store: where outputs live.
        values: the stage's flags.
        dataset: the data set's registered name.
        shards: what ``convert`` left.
    """
    inputs = {"dataset_dir": shards.digest}
    if values.get("tf_initial_checkpoint"):
        inputs["tf_initial_checkpoint"] = checkpoint_digest(values["tf_initial_checkpoint"])
    call = StageCall("train", values, {"dataset": dataset, "dataset_dir": shards.folder}, inputs)
    curve = LossCurve()
    result = run_stage(
        store, call, watchers=[ProgressBar("train"), curve], prepare=lambda entry: _start_from_fewer_steps(store, entry)
    )
    curve.publish(result.folder / "metrics.jsonl")
    return result


def _start_from_fewer_steps(store: Store, entry: Entry) -> None:
    """Give a new training the last checkpoint of a finished one that differs in nothing but its fewer steps."""
    if entry.folder.exists():
        return  # an unfinished attempt of its own goes on
    earlier = shorter_training(store, entry)
    if earlier is not None:
        copy_training_state(earlier.folder, entry.folder)
        steps = earlier.identity.parameters[_STEPS]
        get_run_logger().info("train goes on from step %d of %s", steps, shown(earlier.folder))


def shorter_training(store: Store, entry: Entry) -> Entry | None:
    """The longest finished training that equals ``entry`` but for fewer steps."""
    wanted = entry.identity
    found = [
        other
        for other, _ in store.finished("train")
        if other.identity.code_version == wanted.code_version
        and other.identity.inputs == wanted.inputs
        and differs_only_in(_STEPS, other.identity.parameters, wanted.parameters)
        and other.identity.parameters[_STEPS] < wanted.parameters[_STEPS]
    ]
    return max(found, key=lambda other: other.identity.parameters[_STEPS], default=None)


def copy_training_state(source: Path, target: Path) -> None:
    """Copy the last checkpoint with all that training needs to go on; ``target`` appears whole or not at all."""
    temporary = target.with_name(f".tmp-{target.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    name = _last_checkpoint(source / _STATE_FILE)
    others = (path for file in ("model.json", "metrics.jsonl") if (path := source / file).exists())
    for path in (*sorted(source.glob(f"{name}.*")), *others):
        shutil.copy2(path, temporary)
    # A state file of its own: the original's also names checkpoints that stay behind.
    state = f'model_checkpoint_path: "{name}"\nall_model_checkpoint_paths: "{name}"\n'
    (temporary / _STATE_FILE).write_text(state, encoding="utf-8")
    temporary.rename(target)


def _last_checkpoint(state_file: Path) -> str:
    """The name (without folder) of the last checkpoint in TensorFlow's state file."""
    first = state_file.read_text(encoding="utf-8").partition("\n")[0]
    return Path(first.partition(":")[2].strip().strip('"')).name
