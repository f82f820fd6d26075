"""Bring the data set's archive here, or hand its address on."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from deeplab.data.origin import holds_secrets
from deeplab.stage.inputs import input_digest
from tasks.artifacts import ProgressBar
from tasks.call import StageCall
from tasks.sources import Address, Fetched, UserFiles, address, is_url
from tasks.stage import Site, run_stage


@task(persist_result=False, task_run_name="fetch")
def fetch(site: Site, values: Mapping[str, Any], source: str) -> Fetched | Address | UserFiles:
    """Fetch a file; the same content of the same place is fetched once. A folder on this machine is taken as it is.

    Args:
        site: where the stage runs. Remotely there is nothing to do for an address: who reads the file fetches it.
        values: the stage's flags.
        source: URL or path.
    """
    if not is_url(source) and Path(source).is_dir():
        return UserFiles(source, (), partial(input_digest, source), site.mirror, "fetch.source")
    if holds_secrets(source):
        get_run_logger().warning(
            "fetch.source holds a signature or a password, and Prefect shows a run's parameters to whoever sees the "
            "run: give the address alone, and credentials by --azure_storage or the environment"
        )
    found = replace(address(source, values.get("azure_endpoint")), flags=values)
    if site.remote and is_url(source):
        return found
    # What is behind the address cannot be known yet: its name, size and ETag (or time of change) stand for it.
    call = StageCall("fetch", values, inputs={"source": found})
    return Fetched(run_stage(replace(site, remote=False), call, watchers=[ProgressBar("fetch")]), source)
