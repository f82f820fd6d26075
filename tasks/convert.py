"""Convert the archive to TFRecord shards."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from tasks.artifacts import ProgressBar
from tasks.call import Source, StageCall
from tasks.result import StageResult
from tasks.stage import Site, run_stage


@task(persist_result=False, task_run_name="convert")
def convert(site: Site, values: Mapping[str, Any], dataset: str, archive: Source) -> StageResult:
    """Convert a data set.

    Args:
        site: where the stage runs.
        values: the stage's flags.
        dataset: the data set's registered name.
        archive: what ``fetch`` left.
    """
    call = StageCall("convert", values, {"dataset": dataset}, {"source": archive})
    return run_stage(site, call, watchers=[ProgressBar("convert")])
