"""Draw the demo's data set: a small zip in the layout of ADE20K."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from tasks.call import StageCall
from tasks.result import StageResult
from tasks.stage import Site, run_stage


@task(persist_result=False, task_run_name="sample")
def sample(site: Site, values: Mapping[str, Any]) -> StageResult:
    """Draw made-up scenes into a zip.

    Args:
        site: where outputs live.
        values: the stage's flags.
    """
    return run_stage(site, StageCall("sample", values))
