"""Train, from scratch or on from a finished training of fewer steps."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from tasks.archive import archive_call
from tasks.artifacts import LossCurve, ProgressBar
from tasks.call import Source, StageCall
from tasks.errors import StoreError
from tasks.result import StageResult
from tasks.sources import checkpoint
from tasks.stage import Site, Start, finished, look_up, packed_there, run_stage
from tasks.store import Entry, Identity, differs_only_in

_STEPS = "training_number_of_steps"
_STATE_FILE = "checkpoint"


@task(persist_result=False, task_run_name="train")
def train(site: Site, values: Mapping[str, Any], dataset: str, shards: StageResult) -> StageResult:
    """Train a network.

    Args:
        site: where the stage runs.
        values: the stage's flags.
        dataset: the data set's registered name.
        shards: what ``convert`` left.
    """
    call = train_call(site, values, dataset, shards)
    curve = LossCurve()
    start = Start(
        here=lambda entry: _copy_fewer_steps(site, entry), remote=lambda entry: _addresses_of_fewer_steps(site, entry)
    )
    result = run_stage(site, call, watchers=[ProgressBar("train"), curve], start=start)
    curve.publish(result.file("metrics.jsonl"))
    return result


def train_call(site: Site, values: Mapping[str, Any], dataset: str, shards: StageResult) -> StageCall:
    """What the stage is asked to do; the arguments are those of ``train``."""
    inputs: dict[str, Source] = {"dataset_dir": shards}
    if values.get("tf_initial_checkpoint"):
        inputs["tf_initial_checkpoint"] = checkpoint(values["tf_initial_checkpoint"], site.mirror)
    return StageCall("train", values, {"dataset": dataset}, inputs)


def _copy_fewer_steps(site: Site, entry: Entry) -> None:
    """Give a new training the last checkpoint of a finished one that differs in nothing but its fewer steps."""
    if entry.folder.exists():
        return  # an unfinished attempt of its own goes on
    earlier = shorter_training(site, entry)
    if earlier is not None:
        copy_training_state(earlier.here(), entry.folder)
        _tell(earlier)


def _addresses_of_fewer_steps(site: Site, entry: Entry) -> list[str]:
    """The same for an execution; a training that only this machine can read does not help it."""
    earlier = shorter_training(site, entry)
    if earlier is None:
        return []
    # An execution reads archives; one that trained has packed its checkpoint itself.
    packed = packed_there(site, archive_call(earlier), earlier) or look_up(site, archive_call(earlier))
    try:
        found = packed.addresses() if packed is not None else []
    except StoreError:
        return []
    if found:
        _tell(earlier)
    return found


def _tell(earlier: StageResult) -> None:
    steps = earlier.entry.identity.parameters[_STEPS]
    get_run_logger().info("train goes on from step %d of %s", steps, earlier.place)


def shorter_training(site: Site, entry: Entry) -> StageResult | None:
    """The longest finished training that equals ``entry`` but for fewer steps."""
    wanted = entry.identity

    def serves(other: Identity) -> bool:
        return (
            other.code_version == wanted.code_version
            and other.inputs == wanted.inputs
            and differs_only_in(_STEPS, other.parameters, wanted.parameters)
            and other.parameters[_STEPS] < wanted.parameters[_STEPS]
        )

    found = finished(site, "train", serves)
    return max(found, key=lambda result: result.entry.identity.parameters[_STEPS], default=None)


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
