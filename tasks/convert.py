"""Convert the archive to TFRecord shards."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from tasks.artifacts import ProgressBar
from tasks.stage import StageCall, StageResult, run_stage
from tasks.store import Store


@task(persist_result=False)
def convert(store: Store, values: Mapping[str, Any], dataset: str, archive: StageResult) -> StageResult:
    """Convert a data set.

    Args:
        store: where outputs live.
        values: the stage's flags.
        dataset: the data set's registered name.
        archive: what ``fetch`` left.
    """
    paths = {"dataset": dataset, "source": archive.output}
    call = StageCall("convert", values, paths, inputs={"source": archive.digest})
    return run_stage(store, call, watchers=[ProgressBar("convert")])
