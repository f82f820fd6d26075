"""``python -m deployments.valohai_yaml > valohai.yaml``: Valohai's steps and pipelines, from the configuration.

Every parameter comes from a stage's configuration model. One that ``model.json`` or the original's default can supply
has no default here: empty means not passed. A test says when the file at the top level differs from this.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

import yaml
from pydantic.fields import FieldInfo

from deeplab.config import CONFIGS
from deeplab.config.base import is_boolean, is_sequence

_IMAGE = "python:3.11"
# Where the project that these steps come from kept its data; yours puts its own address there.
_STORE = "azure://tcsvalohai/deeplab/data/01ERE/01EREM82KQF8DNWGJT3GNM3Q35/upload"
# Stop at the first failure, whether the lines share a shell or not. An image with every package that a training, and so
# any stage, starts with is taken as it is.
_START = (
    "set -e",
    "python -c 'import deeplab.training.train' 2>/dev/null || python -m pip install --quiet -r requirements.txt",
)
_GRAPH = "graph/frozen_inference_graph.pb"
_WITHOUT_EFFECT = "Accepted for the original's sake"


@dataclass(frozen=True)
class _Step:
    """A step that runs one stage (and what belongs to it).

    Attributes:
        name: as Valohai shows it.
        stage: whose parameters it has.
        command: shell lines after the start; ``{parameters}`` is the stage's flags.
        inputs: name -> default address; None for an input without one, which is then optional.
        defaults: parameter -> value that a run starts with.
        left_out: flags that the command sets, or that are paths on the machine.
    """

    name: str
    stage: str
    command: tuple[str, ...]
    inputs: Mapping[str, str | None]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    left_out: frozenset[str] = frozenset()


_TRAINING_DEFAULTS = {
    "dataset": "ade20k",
    "train_split": "train",
    "model_variant": "xception_65",
    "output_stride": 16,
    "atrous_rates": "6,12,18",
    "decoder_output_stride": "4",
    "train_crop_size": "513,513",
    "train_batch_size": 4,
    "training_number_of_steps": 100,
    "min_resize_value": 513,
    "max_resize_value": 513,
    "resize_factor": 16,
}
STEPS = (
    _Step(
        "Load data and convert",
        "convert",
        (
            "python -m deeplab convert --source=/valohai/inputs/ADE20K --output_dir=records {parameters}",
            "cp records/tfrecords.tar.gz records/manifest.json /valohai/outputs/",
        ),
        {"ADE20K": f"{_STORE}/ADEChallengeData2016.zip"},
        {"dataset": "ade20k"},
        frozenset({"source", "output_dir", "image_format", "label_format", "archive"})
        | {f"{split}_image_{kind}" for split in ("train", "val") for kind in ("folder", "label_folder")},
    ),
    _Step(
        "Train DeepLab model",
        "train",
        (
            "mkdir -p run",
            # Checkpoints of an earlier execution of the same training: go on from the last of them. Unpacked in
            # the order of their steps, so that the state and the metrics of the newest remain.
            "for file in $(ls -v /valohai/inputs/checkpoints/*.tar* 2>/dev/null); do"
            ' tar -xf "$file" -C run || exit 1; done',
            # An input that was not given is a folder without files, or no folder.
            ": > initial",
            'if [ -n "$(ls -A /valohai/inputs/initial_checkpoint 2>/dev/null)" ]; then'
            " echo --tf_initial_checkpoint=/valohai/inputs/initial_checkpoint > initial; fi",
            # Each checkpoint is uploaded as soon as it is sealed: a lost machine takes none of them along.
            "python -m deeplab train --dataset_dir=/valohai/inputs/tfrecords --train_logdir=run"
            " --seal_checkpoints=/valohai/outputs $(cat initial) {parameters}",
            "python -m deeplab archive --train_logdir=run --output_dir=archive",
            "cp archive/checkpoints.tar.gz run/model.json run/metrics.jsonl /valohai/outputs/",
            "cp run/manifest.json /valohai/outputs/train.manifest.json",
            "cp archive/manifest.json /valohai/outputs/archive.manifest.json",
        ),
        {"tfrecords": f"{_STORE}/tfrecords.tar.gz", "checkpoints": None, "initial_checkpoint": None},
        _TRAINING_DEFAULTS,
        frozenset({"dataset_dir", "train_logdir", "tf_initial_checkpoint", "seal_checkpoints", "profile_logdir"})
        | {"dense_prediction_cell"},
    ),
    _Step(
        "Evaluate checkpoint",
        "evaluate",
        (
            "python -m deeplab evaluate --dataset_dir=/valohai/inputs/tfrecords"
            " --checkpoint_dir=/valohai/inputs/checkpoints --eval_logdir=evaluation {parameters}",
            "cp evaluation/results.json evaluation/manifest.json /valohai/outputs/",
            "if [ -e evaluation/sheet.png ]; then cp evaluation/sheet.png /valohai/outputs/; fi",
        ),
        {"tfrecords": f"{_STORE}/tfrecords.tar.gz", "checkpoints": f"{_STORE}/checkpoints.tar.gz"},
        {"eval_split": "val"},
        frozenset({"dataset_dir", "checkpoint_dir", "eval_logdir", "dense_prediction_cell"}),
    ),
    _Step(
        "Export trained model to TF frozen graph",
        "export",
        (
            "python -m deeplab export --checkpoint_path=/valohai/inputs/checkpoints"
            f" --export_path={_GRAPH} {{parameters}}",
            # Outputs keep the name that projects know; the manifest keeps the one that the flow's own exports have.
            f"cp {_GRAPH} /valohai/outputs/frozen_graph",
            f"cp {_GRAPH}.manifest.json /valohai/outputs/frozen_graph.manifest.json",
            f"cp {_GRAPH}.model.json /valohai/outputs/frozen_graph.model.json",
            "if [ -e graph/inference_graph.pbtxt ]; then cp graph/inference_graph.pbtxt /valohai/outputs/; fi",
        ),
        {"checkpoints": f"{_STORE}/checkpoints.tar.gz"},
        {},
        frozenset({"checkpoint_path", "export_path", "dense_prediction_cell"}),
    ),
    _Step(
        "Predict images",
        "predict",
        (
            "python -m deeplab predict --model=/valohai/inputs/model --images=/valohai/inputs/images"
            " --output_dir=masks {parameters}",
            "tar -cf /valohai/outputs/masks.tar -C masks ids colours overlays",
            "cp masks/manifest.json /valohai/outputs/",
        ),
        {"model": f"{_STORE}/frozen_graph", "images": f"{_STORE}/tfrecords.tar.gz"},
        {},
        frozenset({"model", "images", "output_dir", "dense_prediction_cell"}),
    ),
)


def document() -> list[dict[str, Any]]:
    """The content of ``valohai.yaml``."""
    steps = [{"step": _step(step)} for step in STEPS]
    return [*steps, {"task": _sweep()}, *({"pipeline": pipeline} for pipeline in (_seed_pipeline(), _full_pipeline()))]


def _step(step: _Step) -> dict[str, Any]:
    fields = CONFIGS[step.stage].model_fields
    names = [
        name
        for name, info in fields.items()
        if name not in step.left_out and not (info.description or "").startswith(_WITHOUT_EFFECT)
    ]
    return {
        "name": step.name,
        "description": (CONFIGS[step.stage].__doc__ or "").strip().splitlines()[0],
        "image": _IMAGE,
        "command": [*_START, *step.command],
        "inputs": [_input(name, default) for name, default in step.inputs.items()],
        "parameters": [_parameter(name, fields[name], step.defaults.get(name)) for name in names],
    }


def _input(name: str, default: str | None) -> dict[str, Any]:
    return {"name": name, "optional": True} if default is None else {"name": name, "default": default}


def _parameter(name: str, info: FieldInfo, default: Any) -> dict[str, Any]:
    # What can be unset in spite of a default here is text: an empty one is "not given".
    kind = "string" if default is not None and info.default is None else _type(info)
    content: dict[str, Any] = {"name": name, "type": kind, "description": info.description or ""}
    if kind == "flag":
        content |= {"pass-true-as": f"--{name}=true", "pass-false-as": f"--{name}=false"}
    elif default is None:
        content["optional"] = True
    if default is not None:
        content["default"] = str(default) if kind == "string" else default
    return content


def _type(info: FieldInfo) -> Literal["flag", "integer", "float", "string"]:
    if is_boolean(info):
        return "flag"
    if is_sequence(info):
        return "string"  # a comma list
    options = {info.annotation, *get_args(info.annotation)}
    literals = [value for option in options if get_origin(option) is Literal for value in get_args(option)]
    literals += [option for option in options if isinstance(option, int) and not isinstance(option, bool)]
    if int in options or any(isinstance(value, int) for value in literals):
        return "integer"
    return "float" if float in options else "string"


def _sweep() -> dict[str, Any]:
    return {
        "name": "Sweep training",
        "step": "Train DeepLab model",
        "type": "grid_search",
        "parameters": [
            {"name": "base_learning_rate", "style": "multiple", "rules": {"items": [0.0001, 0.0007, 0.007]}}
        ],
    }


_LOAD = {"name": "load-node", "type": "execution", "step": "Load data and convert"}
_TRAIN = {
    "name": "train-node",
    "type": "execution",
    "step": "Train DeepLab model",
    "override": {"inputs": [{"name": "tfrecords"}]},
}
_EXPORT = {
    "name": "export-node",
    "type": "execution",
    "step": "Export trained model to TF frozen graph",
    "override": {"inputs": [{"name": "checkpoints"}]},
}
_SEED_EDGES = [
    ["load-node.output.tfrecords.tar.gz", "train-node.input.tfrecords"],
    ["train-node.output.checkpoints.tar.gz", "export-node.input.checkpoints"],
]


def _seed_pipeline() -> dict[str, Any]:
    return {"name": "Convert, train and export", "nodes": [_LOAD, _TRAIN, _EXPORT], "edges": _SEED_EDGES}


def _full_pipeline() -> dict[str, Any]:
    evaluate = {
        "name": "evaluate-node",
        "type": "execution",
        "step": "Evaluate checkpoint",
        "override": {"inputs": [{"name": "tfrecords"}, {"name": "checkpoints"}]},
    }
    predict = {
        "name": "predict-node",
        "type": "execution",
        "step": "Predict images",
        "override": {
            "inputs": [{"name": "model"}, {"name": "images"}],
            "parameters": [{"name": "max_images", "default": 8}],
        },
    }
    edges = [
        *_SEED_EDGES,
        ["load-node.output.tfrecords.tar.gz", "evaluate-node.input.tfrecords"],
        ["train-node.output.checkpoints.tar.gz", "evaluate-node.input.checkpoints"],
        ["export-node.output.frozen_graph*", "predict-node.input.model"],
        ["load-node.output.tfrecords.tar.gz", "predict-node.input.images"],
    ]
    return {"name": "Full pipeline", "nodes": [_LOAD, _TRAIN, evaluate, _EXPORT, predict], "edges": edges}


class _Dumper(yaml.SafeDumper):
    """Repeats shared parts instead of using YAML's anchors, which Valohai's linter does not follow."""

    def ignore_aliases(self, data: Any) -> bool:
        """No anchors."""
        return True


def text() -> str:
    """``valohai.yaml`` as it is written."""
    header = "# Written by python -m deployments.valohai_yaml from the configuration; change it there.\n"
    return header + yaml.dump(document(), Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)


if __name__ == "__main__":
    sys.stdout.write(text())
