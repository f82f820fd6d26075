"""Measure a checkpoint."""

import json
from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from tasks.artifacts import ProgressBar, publish_scores, publish_sheet
from tasks.stage import StageCall, StageResult, run_stage
from tasks.store import Store


@task(persist_result=False)
def evaluate(store: Store, values: Mapping[str, Any], shards: StageResult, training: StageResult) -> StageResult:
    """Evaluate a checkpoint on the validation split.

    Args:
        store: where outputs live.
        values: the stage's flags.
        shards: what ``convert`` left.
        training: what ``train`` left.
    """
    description = ModelDescription.read(training.folder / "model.json")
    call = StageCall(
        "evaluate",
        values,
        {"dataset": description.dataset, "dataset_dir": shards.folder, "checkpoint_dir": training.folder},
        {"dataset_dir": shards.digest, "checkpoint_dir": training.digest},
        description,
    )
    result = run_stage(store, call, watchers=[ProgressBar("evaluate")])
    publish_scores(read_scores(result))
    publish_sheet(result.folder / "sheet.png")
    return result


def read_scores(evaluation: StageResult) -> dict[str, Any]:
    """The content of ``results.json``: mean IoU, accuracies, and the figures of each class."""
    scores: dict[str, Any] = json.loads((evaluation.folder / "results.json").read_text(encoding="utf-8"))
    return scores
