"""``python -m deployments.register``: tells a Prefect server what there is to run. It may be repeated at any time.

Block types, the work pool, the limit of trainings, the deployments of ``prefect.yaml`` and the automations. The files
decide, with one exception: what a person has switched on or off in the UI, and that limit's number, stay so.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound, ParameterTypeError
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

from deeplab.errors import ConfigError
from deployments.automations import register_automations
from deployments.gpu_limit import register_gpu_limit
from deployments.project_file import FILE, ROOT, Entry, read
from deployments.work_pool import NAME, register_work_pool
from flows import console
from tasks.azure_storage import AzureStorage
from tasks.gpu import LIMIT
from tasks.valohai.block import ValohaiCredentials

BLOCKS = (AzureStorage, ValohaiCredentials)


def register(client: SyncPrefectClient, file: Path = FILE, root: Path = ROOT) -> Iterator[str]:
    """Register everything; yields a line for each thing.

    Args:
        client: of the server.
        file: the deployments.
        root: folder that the flows' files are named from.

    Raises:
        ConfigError: for a deployment that could not run.
    """
    project = read(file)
    for block in BLOCKS:
        block.register_type_and_schema()
        yield f"block type   {block.get_block_type_slug()}"
    yield f"work pool    {NAME}: {register_work_pool(client)}"
    yield f"limit        {LIMIT}: {register_gpu_limit(client)}"
    for entry in project.deployments:
        if entry.file(root).is_file():
            yield f"deployment   {deploy(client, entry, project.pull, root)}"
        else:
            yield f"deployment   {entry.name}: left out: there is no {entry.entrypoint.partition(':')[0]}"
    for name, outcome in register_automations(client):
        yield f"automation   {name}: {outcome}"


def load(entry: Entry, root: Path = ROOT) -> Flow[..., Any]:
    """The flow of a deployment, with which its parameters agree.

    Raises:
        ConfigError: if there is no such flow, or its parameters are refused.
    """
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(f"{root}/{entry.entrypoint}")
    except Exception as error:  # whatever importing a person's file raises
        raise ConfigError(f"{entry.name}: {entry.entrypoint} cannot be loaded: {error}") from error
    # One that gives none leaves them to whoever starts a run; a schedule starts runs by itself.
    asked = [*([entry.parameters] if entry.parameters else []), *(schedule.parameters for schedule in entry.schedules)]
    for given in asked:
        try:
            flow.validate_parameters({**entry.parameters, **given})
        except (ParameterTypeError, TypeError) as error:
            raise ConfigError(f"{entry.name}: parameters: {' '.join(str(error).split())}") from None
    return flow


def deploy(client: SyncPrefectClient, entry: Entry, pull: list[dict[str, Any]], root: Path = ROOT) -> str:
    """Make a deployment, or bring it up to date; returns its name.

    Raises:
        ConfigError: if it could not run, or its work pool is not there.
    """
    flow = load(entry, root)
    name = f"{flow.name}/{entry.name}"
    _check_pool(client, entry)
    switches = _switches(client, name)
    limit = entry.concurrency_limit
    client.create_deployment(
        client.create_flow(flow),
        entry.name,
        description=entry.description,
        entrypoint=entry.entrypoint,
        tags=entry.tags,
        parameters=entry.parameters,
        parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
        enforce_parameter_schema=True,
        schedules=[schedule.create(switches.get(schedule.slug)) for schedule in entry.schedules],
        concurrency_limit=limit.limit if limit else None,
        concurrency_options=limit.options if limit else None,
        work_pool_name=entry.work_pool.name,
        work_queue_name=entry.work_pool.work_queue_name,
        job_variables=entry.work_pool.job_variables,
        pull_steps=pull,
    )
    return name


def _check_pool(client: SyncPrefectClient, entry: Entry) -> None:
    pool = entry.work_pool.name
    try:
        client.read_work_pool(pool)
    except ObjectNotFound:
        kind = pool.rpartition("-")[2]
        raise ConfigError(
            f"{entry.name}: there is no work pool {pool}; make it first: prefect work-pool create --type={kind} {pool}"
        ) from None


def _switches(client: SyncPrefectClient, name: str) -> dict[str, bool]:
    """Slug of each schedule of a deployment -> whether it is switched on."""
    try:
        found: DeploymentResponse = client.read_deployment_by_name(name)
    except ObjectNotFound:
        return {}
    return {schedule.slug: schedule.active for schedule in found.schedules if schedule.slug}


def main(arguments: Sequence[str] | None = None) -> int:
    """Register from a command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m deployments.register", description=__doc__)
    parser.add_argument("--file", type=Path, default=FILE, help="the deployments; a prefect.yaml")
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)

    def body() -> None:
        print(f"server       {console.require_server('deployments are registered with a server')}", flush=True)
        console.start_api()
        with get_client(sync_client=True) as client:
            for line in register(client, given.file):
                print(line, flush=True)

    return console.run(body, hint="the same command registers the rest")


if __name__ == "__main__":
    raise SystemExit(main())
