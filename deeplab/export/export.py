"""``deeplab export``: the original's export_model.py."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from google.protobuf import text_format

from deeplab.config import ExportConfig, ModelDescription, resolve
from deeplab.config.advice import rates_of_another_stride
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.datasets import get_dataset
from deeplab.export.frozen_graph import build_frozen_graph
from deeplab.model.checkpoint import Checkpoint, open_checkpoint
from deeplab.stage import OutputFile
from deeplab.stage.versions import CODE_VERSIONS

_log = logging.getLogger(__name__)


def run(given: Mapping[str, Any]) -> None:
    """Run the stage on the values of a command line."""
    with open_checkpoint(str(given.get("checkpoint_path") or ".")) as checkpoint:
        config = resolve(ExportConfig, given, checkpoint.description)
        if advice := rates_of_another_stride(config, checkpoint.description):
            _log.warning("%s", advice)
        inputs = {"checkpoint_path": checkpoint.digest()}
        with OutputFile(config.export_path, "export", CODE_VERSIONS["export"], config, inputs) as output:
            if output.finished:
                _log.info("%s: already exported with these flags", output.path)
                return
            graph = build_frozen_graph(config, checkpoint.read())
            output.temporary.write_bytes(graph.SerializeToString(deterministic=True))
            beside = _write_description(config, checkpoint, output.path)
            if config.save_inference_graph:
                _write_text(text_format.MessageToString(graph), output.path.with_name("inference_graph.pbtxt"))
            output.finish([beside])
            _log.info("%s: %d nodes, %d bytes", output.path, len(graph.node), output.path.stat().st_size)


def _write_description(config: ExportConfig, checkpoint: Checkpoint, path: Path) -> Path:
    known = checkpoint.description
    dataset: dict[str, Any] = {}
    if config.dataset is not None and (known is None or known.dataset != config.dataset):
        dataset = get_dataset(config.dataset).description()
    elif known is not None:
        dataset = {"dataset": known.dataset, "ignore_label": known.ignore_label, "classes": known.classes}
    target = path.with_name(f"{path.name}.{DESCRIPTION_NAME}")
    ModelDescription.of(config, config.crop_size, config.num_classes, **dataset).write(target)
    return target


def _write_text(text: str, path: Path) -> None:
    temporary = path.with_name(f".tmp-{path.name}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
