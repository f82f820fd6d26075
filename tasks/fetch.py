"""Bring the data set's archive here, or hand its address on."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from deeplab.data.origin import holds_secrets
from deeplab.errors import FetchError
from deeplab.stage.inputs import input_digest
from tasks.artifacts import ProgressBar
from tasks.call import StageCall
from tasks.result import StageResult
from tasks.sources import Address, UserFiles, address, is_url
from tasks.stage import Site, run_stage


@dataclass(frozen=True)
class Fetched:
    """A file that was fetched.

    Attributes:
        result: what the stage left.
        source: where it came from.
    """

    result: StageResult
    source: str

    @property
    def digest(self) -> str:
        """Stands for the file's name and content."""
        return self.result.digest

    def here(self) -> Path:
        """The file."""
        products = [output.path for output in self.result.manifest.outputs if output.kind == "product"]
        if len(products) != 1:
            raise FetchError(
                f"{self.result.place}: holds {len(products)} files instead of one; delete it and run again"
            )
        return self.result.here() / products[0]

    def addresses(self) -> list[str]:
        """Where an execution can read it: where it came from, unless that is this machine's disk."""
        return [self.source] if is_url(self.source) else self.result.addresses()


@task(persist_result=False, task_run_name="fetch")
def fetch(site: Site, values: Mapping[str, Any], source: str) -> Fetched | Address | UserFiles:
    """Fetch a file; the same content of the same place is fetched once. A folder on this machine is taken as it is.

    Args:
        site: where the stage runs. Remotely there is nothing to do for an address: who reads the file fetches it.
        values: the stage's flags.
        source: URL or path.
    """
    if not is_url(source) and Path(source).is_dir():
        return UserFiles(source, (), input_digest(source), site.mirror, "fetch.source")
    if holds_secrets(source):
        get_run_logger().warning(
            "fetch.source holds a signature or a password, and Prefect shows a run's parameters to whoever sees the "
            "run: give the address alone, and credentials by --azure_storage or the environment"
        )
    found = address(source, values.get("azure_endpoint"))
    if site.remote and is_url(source):
        return found
    # What is behind the address cannot be known yet: its name, size and ETag (or time of change) stand for it.
    call = StageCall("fetch", values, inputs={"source": found})
    return Fetched(run_stage(replace(site, remote=False), call, watchers=[ProgressBar("fetch")]), source)
