"""Pack the last checkpoint of a training."""

from prefect import task

from tasks.stage import StageCall, StageResult, run_stage
from tasks.store import Store


@task(persist_result=False)
def archive(store: Store, training: StageResult) -> StageResult:
    """Pack a checkpoint with its description as ``checkpoints.tar.gz``.

    Args:
        store: where outputs live.
        training: what ``train`` left.
    """
    call = StageCall("archive", {}, {"train_logdir": training.folder}, {"train_logdir": training.digest})
    return run_stage(store, call)
