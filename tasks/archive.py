"""Pack the last checkpoint of a training."""

from prefect import task

from tasks.call import StageCall
from tasks.result import StageResult
from tasks.stage import Site, packed_there, run_stage


@task(persist_result=False, task_run_name="archive")
def archive(site: Site, training: StageResult) -> StageResult:
    """Pack a checkpoint with its description as ``checkpoints.tar.gz``.

    Args:
        site: where outputs live; an execution that trained has packed its checkpoint itself.
        training: what ``train`` left.
    """
    call = archive_call(training)
    return packed_there(site, call, training) or run_stage(site, call)


def archive_call(training: StageResult) -> StageCall:
    """What the stage is asked to do."""
    return StageCall("archive", {}, inputs={"train_logdir": training})
