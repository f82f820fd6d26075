"""The work pool whose workers start runs as processes of their machine."""

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound
from prefect.workers.process import ProcessWorker

NAME = "deeplab"
# Runs at once on all machines of the pool. More than the trainings and sweeps that their deployments let in: these may
# wait for the GPU or for their trials, and what takes minutes finds a place all the same.
CONCURRENCY_LIMIT = 6
_DESCRIPTION = "Runs of DeepLab flows, each a process on the worker's machine"


def register_work_pool(client: SyncPrefectClient) -> str:
    """Make the pool, or bring it up to date; returns what became of it."""
    try:
        found = client.read_work_pool(NAME)
    except ObjectNotFound:
        client.create_work_pool(
            WorkPoolCreate(
                name=NAME,
                type="process",
                description=_DESCRIPTION,
                # There before the first worker is, so that job variables are checked.
                base_job_template=ProcessWorker.get_default_base_job_template(),
                concurrency_limit=CONCURRENCY_LIMIT,
            )
        )
        return "made"
    if found.concurrency_limit == CONCURRENCY_LIMIT and found.description == _DESCRIPTION:
        return "as it was"
    client.update_work_pool(NAME, WorkPoolUpdate(description=_DESCRIPTION, concurrency_limit=CONCURRENCY_LIMIT))
    return "brought up to date"
