"""``deeplab archive``: the last checkpoint and its description as one reproducible archive."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deeplab.config import ArchiveConfig, resolve
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.packing import pack
from deeplab.model.checkpoint import locate, write_state
from deeplab.stage import OutputFolder
from deeplab.stage.versions import CODE_VERSIONS

ARCHIVE_NAME = "checkpoints.tar.gz"
_log = logging.getLogger(__name__)


def run(given: Mapping[str, Any]) -> None:
    """Run the stage on the values of a command line."""
    config = resolve(ArchiveConfig, given)
    checkpoint = locate(Path(config.train_logdir))
    inputs = {"train_logdir": checkpoint.digest()}
    with OutputFolder(config.output_dir, "archive", CODE_VERSIONS["archive"], config, inputs) as folder:
        if folder.finished:
            _log.info("%s: already packed", folder.path)
            return
        # A state file of its own: the training folder's also names checkpoints that are not packed.
        write_state(folder.path, [checkpoint.prefix])
        state, target = folder.path / "checkpoint", folder.path / ARCHIVE_NAME
        files = [*checkpoint.files(), state]
        if checkpoint.description is not None:
            files.append(checkpoint.prefix.with_name(DESCRIPTION_NAME))
        else:
            _log.warning("%s: no %s beside the checkpoint; packed without", checkpoint.prefix, DESCRIPTION_NAME)
        digest = pack(files, target)
        state.unlink()
        folder.finish([target], digests={target: digest})
        _log.info("%s: %s, step %d", target, checkpoint.prefix.name, checkpoint.step)
