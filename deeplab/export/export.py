"""``deeplab export``: the original's export_model.py."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tensorflow as tf
from google.protobuf import text_format

from deeplab.config import ExportConfig, ModelDescription, resolve
from deeplab.config.advice import rates_of_another_stride
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.datasets import get_dataset
from deeplab.errors import ConfigError
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
        dataset = _dataset(config, checkpoint)
        inputs = {"checkpoint_path": checkpoint.digest()}
        with OutputFile(config.export_path, "export", CODE_VERSIONS["export"], config, inputs) as output:
            if output.finished:
                _log.info("%s: already exported with these flags", output.path)
            else:
                _export(config, checkpoint, dataset, output)
            if config.save_inference_graph:
                _write_as_text(output.path)


def _dataset(config: ExportConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    """What the description says of the data set: of --dataset, else of the checkpoint, else nothing."""
    known = checkpoint.description
    if config.dataset is not None and (known is None or known.dataset != config.dataset):
        dataset = get_dataset(config.dataset)
        if dataset.num_classes != config.num_classes:
            raise ConfigError(
                f"--dataset={dataset.name} has {dataset.num_classes} classes, the model {config.num_classes}; name the "
                "data set it was trained on, or leave the flag out"
            )
        return dataset.description()
    if known is None:
        return {}
    return {"dataset": known.dataset, "ignore_label": known.ignore_label, "classes": known.classes}


def _export(config: ExportConfig, checkpoint: Checkpoint, dataset: Mapping[str, Any], output: OutputFile) -> None:
    graph = build_frozen_graph(config, checkpoint.read())
    output.temporary.write_bytes(graph.SerializeToString(deterministic=True))
    description = ModelDescription.of(config, config.crop_size, config.num_classes, **dataset)
    description.write(output.beside(f".{DESCRIPTION_NAME}"))
    output.finish()
    _log.info("%s: %d nodes, %d bytes", output.path, len(graph.node), output.path.stat().st_size)


def _write_as_text(path: Path) -> None:
    graph = tf.compat.v1.GraphDef.FromString(path.read_bytes())
    target = path.with_name("inference_graph.pbtxt")
    temporary = target.with_name(f".tmp-{target.name}")
    temporary.write_text(text_format.MessageToString(graph), encoding="utf-8")
    temporary.replace(target)
    _log.info("%s: the graph as text", target)
