"""Segment photos: with the frozen graph of a run, or with any network."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from tasks.artifacts import ProgressBar, publish_overlays
from tasks.call import Source, StageCall
from tasks.result import StageResult
from tasks.sources import photos
from tasks.stage import Site, run_stage

# Photos of the validation split that are segmented when nobody names any.
_DEFAULT_COUNT = 8


@task(persist_result=False, task_run_name="predict")
def predict(site: Site, values: Mapping[str, Any], graph: StageResult, shards: StageResult) -> StageResult:
    """Write masks, coloured masks and overlays of photos.

    Args:
        site: where the stage runs.
        values: the stage's flags; without ``images``, photos of the validation split are taken.
        graph: what ``export`` left.
        shards: what ``convert`` left.
    """
    description = ModelDescription.read(graph.file(f"{graph.entry.file_name}.model.json"))
    if values.get("images"):
        return _predict(site, values, graph, photos(values["images"], site.mirror), description)
    return _predict(site, {"max_images": _DEFAULT_COUNT, **values}, graph, shards, description)


@task(persist_result=False, name="predict", task_run_name="predict")
def segment(
    site: Site, values: Mapping[str, Any], model: Source, images: Source, description: ModelDescription | None
) -> StageResult:
    """Write masks, coloured masks and overlays of a person's photos.

    Args:
        site: where the stage runs.
        values: the stage's flags.
        model: frozen graph or checkpoint.
        images: photos.
        description: what is known of the model, if anything.
    """
    return _predict(site, values, model, images, description)


def _predict(
    site: Site, values: Mapping[str, Any], model: Source, images: Source, description: ModelDescription | None
) -> StageResult:
    call = StageCall("predict", values, inputs={"model": model, "images": images}, description=description)
    result = run_stage(site, call, watchers=[ProgressBar("predict")])
    publish_overlays(sorted((result.here() / "overlays").iterdir()))
    return result
