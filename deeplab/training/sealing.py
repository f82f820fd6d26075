"""``checkpoint-STEP.tar``: a checkpoint and what a training needs to go on from it, as one file that stays.

Whoever copies files away while the training runs (Valohai takes a read-only output at once) finds it whole or not at
all. Unpacked into an empty folder, it is the training as it was at that step.
"""

import logging
import tempfile
from pathlib import Path

from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.packing import pack
from deeplab.errors import OutputError
from deeplab.model.checkpoint import Checkpoint, write_state
from deeplab.training.metrics_log import FILE_NAME as METRICS_NAME

_log = logging.getLogger(__name__)


class SealedCheckpoints:
    """The folder of a training's sealed checkpoints; nothing in it is ever removed or written anew.

    Args:
        folder: made if missing.

    Raises:
        OutputError: if it cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # Those of this process: their files may have been taken away.
        self._steps: set[int] = set()
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"--seal_checkpoints={folder}: cannot be made ({error.strerror}); choose another folder"
            ) from None

    def add(self, checkpoint: Checkpoint) -> None:
        """Write ``checkpoint-STEP.tar`` unless it is there.

        Args:
            checkpoint: in the training's folder, with ``model.json`` and the metrics up to its step beside it.
        """
        target = self._folder / f"checkpoint-{checkpoint.step}.tar"
        if checkpoint.step in self._steps or target.exists():
            _log.info("%s: sealed already", target)
            return
        folder = checkpoint.prefix.parent
        with tempfile.TemporaryDirectory(prefix="deeplab-seal-") as own:
            # The training folder's state file also names checkpoints that are not in the archive.
            write_state(Path(own), [checkpoint.prefix])
            beside = [folder / DESCRIPTION_NAME, folder / METRICS_NAME, Path(own) / "checkpoint"]
            pack([*checkpoint.files(), *beside], target)
        # Only under its own name: a read-only file may be taken away at once.
        target.chmod(0o444)
        self._steps.add(checkpoint.step)
        _log.info("sealed %s", target)
