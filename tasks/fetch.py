"""Bring the data set's archive here."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.data.fetch import find_origin
from deeplab.errors import FetchError
from deeplab.stage.manifest import Manifest, combined_digest
from tasks.artifacts import ProgressBar
from tasks.stage import StageCall, StageResult, run_stage
from tasks.store import Store


@task(persist_result=False)
def fetch(store: Store, values: Mapping[str, Any], source: str) -> StageResult:
    """Fetch a file; the same content of the same place is fetched once.

    Args:
        store: where outputs live.
        values: the stage's flags.
        source: URL or path.

    Returns:
        The result, whose ``output`` is the file.
    """
    # What is behind the address cannot be known yet: its name, size and ETag (or modification time) stand for it.
    identity = combined_digest(find_origin(source, values.get("azure_endpoint")).identity)
    call = StageCall("fetch", values, paths={"source": source}, inputs={"source": identity})
    result = run_stage(store, call, watchers=[ProgressBar("fetch")])
    return _pointing_at_the_file(result)


def _pointing_at_the_file(result: StageResult) -> StageResult:
    manifest = Manifest.read(result.folder / "manifest.json")
    products = [output.path for output in manifest.outputs if output.kind == "product"]
    if len(products) != 1:
        raise FetchError(f"{result.folder}: holds {len(products)} files instead of one; delete it and run again")
    return StageResult(**{**vars(result), "output": result.folder / products[0]})
