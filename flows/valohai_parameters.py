"""The parameters of the flows that run whole pipelines and sweeps on Valohai."""

from pathlib import Path
from typing import Any

from deeplab.config import Flags
from deeplab.config.base import flag
from tasks.valohai_group import Code


class RemoteParameters(Flags):
    """What runs, and as whom."""

    folder: str = flag(".", "Folder of the code and its valohai.yaml.")
    commit: str | None = flag(None, "Git commit (HEAD: the one checked out); empty: the files of the folder.")
    environment: str | None = flag(None, "Machine type: slug or name; empty: as the steps or the project say.")
    credentials: str | None = flag(
        None, "Prefect block with host, token and project; empty: VALOHAI_TOKEN and so on, or the login of vh."
    )
    repeat: bool = flag(False, "Run once more although the very same is complete.")

    @property
    def code(self) -> Code:
        """What runs, and on which machines."""
        return Code(Path(self.folder), self.commit, self.environment)


class PipelineFlowParameters(RemoteParameters):
    """Run a pipeline of valohai.yaml on Valohai and follow its nodes."""

    pipeline: str = flag("Full pipeline", "Name of the pipeline, or its beginning.")
    parameters: dict[str, dict[str, Any]] = flag({}, "Node, then parameter: value.")
    inputs: dict[str, dict[str, str | list[str]]] = flag({}, "Node, then input: address.")


class SweepFlowParameters(RemoteParameters):
    """Run a task of valohai.yaml on Valohai: one step over variants of its parameters."""

    task: str = flag("Sweep training", "Name of the task, or its beginning.")
    parameters: dict[str, Any] = flag({}, "Parameter: value; several values are tried in turn.")
    inputs: dict[str, str | list[str]] = flag({}, "Input: address.")
