"""Segment photos with the frozen graph."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from tasks.artifacts import ProgressBar
from tasks.call import Source, StageCall
from tasks.result import StageResult
from tasks.sources import photos
from tasks.stage import Site, run_stage

# Photos of the validation split that are segmented when nobody names any.
_DEFAULT_COUNT = 8


@task(persist_result=False)
def predict(site: Site, values: Mapping[str, Any], graph: StageResult, shards: StageResult) -> StageResult:
    """Write masks, coloured masks and overlays of photos.

    Args:
        site: where the stage runs.
        values: the stage's flags; without ``images``, photos of the validation split are taken.
        graph: what ``export`` left.
        shards: what ``convert`` left.
    """
    description = ModelDescription.read(graph.file(f"{graph.entry.file_name}.model.json"))
    images: Source = shards
    if values.get("images"):
        images = photos(values["images"], site.mirror)
    else:
        values = {"max_images": _DEFAULT_COUNT, **values}
    call = StageCall("predict", values, inputs={"model": graph, "images": images}, description=description)
    return run_stage(site, call, watchers=[ProgressBar("predict")])
