"""Stage ``fetch``: bring one file here, whole or not at all."""

import logging
from collections.abc import Mapping
from typing import Any

from deeplab.config import FetchConfig, resolve
from deeplab.data.download import discard, download, find_origin
from deeplab.errors import FetchError
from deeplab.stage import OutputFolder
from deeplab.stage.manifest import combined_digest
from deeplab.stage.versions import CODE_VERSIONS

__all__ = ["find_origin", "run"]

_log = logging.getLogger(__name__)


def run(given: Mapping[str, Any]) -> None:
    """Fetch a file; ``given`` are flags of ``FetchConfig``.

    Raises:
        ConfigError: for a bad flag.
        FetchError: if the source cannot be read, or its content is not what was promised.
        OutputError: if the folder cannot be written or holds other work.
    """
    config = resolve(FetchConfig, given)
    origin = find_origin(config.source, config.azure_endpoint)
    inputs = {"source": combined_digest(origin.identity)}
    with OutputFolder(config.output_dir, "fetch", CODE_VERSIONS["fetch"], config, inputs) as folder:
        if folder.finished:
            _log.info("%s: %s is already here", folder.path, origin.name)
            return
        partial = folder.path / ".partial"
        found = download(origin, partial)
        if config.sha256 is not None and found != config.sha256.lower():
            discard(partial)
            raise FetchError(
                f"{origin.shown}: expected sha256 {config.sha256.lower()}, found {found}; "
                "the file is another version or damaged: correct --sha256 or the source"
            )
        target = folder.path / origin.name
        partial.replace(target)
        discard(partial)
        folder.finish([target], digests={target: found})
