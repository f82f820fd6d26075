"""Write a checkpoint as one frozen graph."""

from collections.abc import Mapping
from typing import Any

from prefect import task

from deeplab.config import ModelDescription
from deeplab.stage.manifest import Manifest
from tasks.errors import StoreError
from tasks.stage import StageCall, StageResult, run_stage, shown
from tasks.store import Store


@task(persist_result=False)
def export(store: Store, values: Mapping[str, Any], training: StageResult) -> StageResult:
    """Export a checkpoint; its files are first compared with their digests, byte for byte.

    Args:
        store: where outputs live.
        values: the stage's flags.
        training: what ``train`` left.

    Returns:
        The result, whose ``output`` is the frozen graph.
    """
    call = StageCall(
        "export",
        values,
        {"checkpoint_path": training.folder},
        {"checkpoint_path": training.digest},
        ModelDescription.read(training.folder / "model.json"),
    )
    return run_stage(store, call, prepare=lambda _: refuse_damage(training))


def refuse_damage(result: StageResult) -> None:
    """Compare an entry's files with their digests.

    Raises:
        StoreError: if one differs; the entry then no longer counts as finished.
    """
    manifest_file = result.folder / "manifest.json"
    damage = Manifest.read(manifest_file).damage(result.folder, deep=True)
    if damage is not None:
        manifest_file.unlink()
        raise StoreError(
            f"{shown(result.folder)}: {damage}. Run the same command again: "
            f"{result.stage} and what needs it are repeated"
        )
