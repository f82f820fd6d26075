"""Write a checkpoint as one frozen graph."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from deeplab.stage.manifest import Manifest
from tasks.call import StageCall
from tasks.errors import StoreError
from tasks.result import StageResult, shown
from tasks.sources import TrainedCheckpoint
from tasks.stage import Site, Start, run_stage
from tasks.store import Entry


@task(persist_result=False, task_run_name="export")
def export(site: Site, values: Mapping[str, Any], checkpoint: TrainedCheckpoint) -> StageResult:
    """Export a checkpoint; its files are first compared with their digests, byte for byte.

    Args:
        site: where the stage runs.
        values: the stage's flags.
        checkpoint: what ``train`` left.

    Returns:
        The result, whose output is the frozen graph.
    """
    description = ModelDescription.read(checkpoint.training.file("model.json"))
    call = StageCall("export", values, inputs={"checkpoint_path": checkpoint}, description=description)
    return run_stage(site, call, start=Start(here=lambda _: refuse_damage(checkpoint.training.entry)))


def refuse_damage(entry: Entry) -> None:
    """Compare the files of an entry that is finished here with their digests.

    Raises:
        StoreError: if one differs; the entry then no longer counts as finished.
    """
    if not entry.manifest_file.exists():
        return  # what is brought here is compared on its way
    damage = Manifest.read(entry.manifest_file).damage(entry.folder, deep=True)
    if damage is not None:
        entry.invalidate()
        raise StoreError(
            f"{shown(entry.folder)}: {damage}. Run the same command again: "
            f"{entry.identity.stage} and what needs it are repeated"
        )
