"""The limit of trainings at once on a GPU; ``tasks.gpu`` keeps to it."""

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.exceptions import ObjectNotFound

from tasks.gpu import LIMIT


def register_gpu_limit(client: SyncPrefectClient) -> str:
    """Make the limit; one that is there stays as a person has set it. Returns what became of it."""
    try:
        client.read_global_concurrency_limit_by_name(LIMIT)
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        return "made"
    return "as it was"
