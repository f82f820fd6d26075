"""Draw the demo's data set: a small zip in the layout of ADE20K."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from tasks.stage import StageCall, StageResult, run_stage
from tasks.store import Store


@task(persist_result=False)
def sample(store: Store, values: Mapping[str, Any]) -> StageResult:
    """Draw made-up scenes into a zip.

    Args:
        store: where outputs live.
        values: the stage's flags.
    """
    return run_stage(store, StageCall("sample", values))
