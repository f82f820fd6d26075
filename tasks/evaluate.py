"""Measure a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from tasks.artifacts import ProgressBar, publish_scores, publish_sheet
from tasks.call import Source, StageCall
from tasks.result import StageResult
from tasks.sources import TrainedCheckpoint
from tasks.stage import Site, run_stage


@task(persist_result=False, task_run_name="evaluate")
def evaluate(site: Site, values: Mapping[str, Any], shards: StageResult, checkpoint: TrainedCheckpoint) -> StageResult:
    """Evaluate a checkpoint on the validation split.

    Args:
        site: where the stage runs.
        values: the stage's flags.
        shards: what ``convert`` left.
        checkpoint: what ``train`` left.
    """
    return _measure(site, evaluate_call(values, shards, checkpoint))


@task(persist_result=False, name="evaluate", task_run_name="evaluate")
def measure(
    site: Site, values: Mapping[str, Any], records: Source, checkpoint: Source, description: ModelDescription | None
) -> StageResult:
    """Evaluate a person's checkpoint.

    Args:
        site: where the stage runs.
        values: the stage's flags.
        records: shards.
        checkpoint: of any training.
        description: what is known of the checkpoint, if anything.
    """
    inputs = {"dataset_dir": records, "checkpoint_dir": checkpoint}
    return _measure(site, StageCall("evaluate", values, inputs=inputs, description=description))


def _measure(site: Site, call: StageCall) -> StageResult:
    result = run_stage(site, call, watchers=[ProgressBar("evaluate")])
    publish_scores(read_scores(result))
    publish_sheet(result.file("sheet.png"))
    return result


def evaluate_call(values: Mapping[str, Any], shards: StageResult, checkpoint: TrainedCheckpoint) -> StageCall:
    """What the stage is asked to do; the arguments are those of ``evaluate``."""
    description = ModelDescription.read(checkpoint.training.file("model.json"))
    inputs: dict[str, Source] = {"dataset_dir": shards, "checkpoint_dir": checkpoint}
    return StageCall("evaluate", values, {"dataset": description.dataset}, inputs, description)


def read_scores(evaluation: StageResult) -> dict[str, Any]:
    """The content of ``results.json``: mean IoU, accuracies, and the figures of each class."""
    scores: dict[str, Any] = json.loads(evaluation.file("results.json").read_text(encoding="utf-8"))
    return scores
