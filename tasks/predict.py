"""Segment photos with the frozen graph."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from deeplab.stage.inputs import input_digest
from deeplab.stage.manifest import combined_digest, sha256_of
from tasks.artifacts import ProgressBar
from tasks.stage import StageCall, StageResult, run_stage
from tasks.store import Store

# Photos of the validation split that are segmented when nobody names any.
_DEFAULT_COUNT = 8


@task(persist_result=False)
def predict(store: Store, values: Mapping[str, Any], graph: StageResult, shards: StageResult) -> StageResult:
    """Write masks, coloured masks and overlays of photos.

    Args:
        store: where outputs live.
        values: the stage's flags; without ``images``, photos of the validation split are taken.
        graph: what ``export`` left.
        shards: what ``convert`` left.
    """
    description = ModelDescription.read(graph.output.with_name(f"{graph.output.name}.model.json"))
    if values.get("images"):
        paths, digest = {"model": graph.output}, photos_digest(values["images"])
    else:
        values = {"max_images": _DEFAULT_COUNT, **values}
        paths, digest = {"model": graph.output, "images": shards.folder}, shards.digest
    call = StageCall("predict", values, paths, {"model": graph.digest, "images": digest}, description)
    return run_stage(store, call, watchers=[ProgressBar("predict")])


def photos_digest(source: str) -> str:
    """Digest of a photo, a folder or a glob; the names count too, because the masks carry them.

    Raises:
        DataError: if there is nothing at ``source``.
    """
    place = Path(source)
    if place.is_file():
        return combined_digest({place.name: sha256_of(place)})
    if place.exists() or not any(sign in source for sign in "*?["):
        return input_digest(place)
    matches = sorted(Path(place.anchor or ".").glob(str(place.relative_to(place.anchor))))
    return combined_digest({path.name: sha256_of(path) for path in matches if path.is_file()})
