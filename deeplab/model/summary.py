"""``deeplab model``: what a configuration builds, as a table or as JSON."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import tensorflow as tf
import tf_slim as slim

from deeplab.config import SummaryConfig, resolve
from deeplab.config.command_line import parse
from deeplab.data.datasets import get_dataset
from deeplab.model import layers
from deeplab.model.network import Network
from deeplab.model.variables import VariableStore


@dataclass(frozen=True)
class VariableSummary:
    """A variable under its original name."""

    name: str
    shape: tuple[int, ...]
    trainable: bool


@dataclass(frozen=True)
class StageSummary:
    """A part of the network: a block of the backbone, or a part of the head."""

    name: str
    convolutions: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class ModelSummary:
    """What a configuration builds.

    Attributes:
        variables: in order of creation.
        parameters: values in trainable variables.
        multiply_adds: of one image of the crop's size; convolutions only, as papers count.
        end_points: name -> ratio of input to output resolution; ``features`` is the backbone's output.
        stages: the same totals, part by part.
    """

    variables: tuple[VariableSummary, ...]
    parameters: int
    multiply_adds: int
    end_points: dict[str, int]
    stages: tuple[StageSummary, ...]


def summarize(config: SummaryConfig) -> ModelSummary:
    """Build the network once, without running it.

    Raises:
        ConfigError: for options that the network does not have.
    """
    store = VariableStore()
    network = Network(config, config.num_classes, config.crop_size, store)
    image = tf.TensorSpec([1, *config.crop_size, 3], tf.float32)
    whole = tf.function(network.logits, autograph=False).get_concrete_function(image)
    end_points: dict[str, int] = {}

    def backbone(images: tf.Tensor) -> None:
        with store.scope(), slim.arg_scope(layers.arg_scope(layers.INFERENCE, store)):
            features, points = network.backbone.build(images, config)
        for name, tensor in {**points, "features": features}.items():
            end_points[name] = _ratio(config.crop_size[0], int(tensor.shape[1]))

    tf.function(backbone, autograph=False).get_concrete_function(image)
    variables = tuple(
        VariableSummary(name, shape, name in store.trainable_names) for name, shape in store.shapes().items()
    )
    stages = _stages(variables, _multiply_adds(whole.graph))
    wanted = {name for names in network.backbone.decoder_end_points.values() for name in names} | {"features"}
    return ModelSummary(
        variables=variables,
        parameters=sum(stage.parameters for stage in stages),
        multiply_adds=sum(stage.multiply_adds for stage in stages),
        end_points={name: stride for name, stride in end_points.items() if name in wanted},
        stages=stages,
    )


def _ratio(before: int, after: int) -> int:
    """The power of two by which aligned corners shrank ``before`` to ``after`` pixels."""
    return 2 ** round(math.log2((before - 1) / max(1, after - 1)))


def _multiply_adds(graph: Any) -> dict[str, int]:
    """Operation name -> multiply-adds of every convolution in a graph of static shapes."""
    counts = {}
    for operation in graph.get_operations():
        if operation.type not in ("Conv2D", "DepthwiseConv2dNative"):
            continue
        height, width, inputs, _ = operation.inputs[1].shape
        outputs = math.prod(int(size) for size in operation.outputs[0].shape)
        # A depthwise kernel sees one input channel per output.
        counts[operation.name] = outputs * height * width * (inputs if operation.type == "Conv2D" else 1)
    return counts


def _stages(variables: tuple[VariableSummary, ...], multiply_adds: Mapping[str, int]) -> tuple[StageSummary, ...]:
    names = list(dict.fromkeys(_stage_name(variable.name) for variable in variables))
    return tuple(
        StageSummary(
            name=name,
            convolutions=sum(_stage_name(operation) == name for operation in multiply_adds),
            parameters=sum(
                math.prod(variable.shape)
                for variable in variables
                if variable.trainable and _stage_name(variable.name) == name
            ),
            multiply_adds=sum(count for operation, count in multiply_adds.items() if _stage_name(operation) == name),
        )
        for name in names
    )


def _stage_name(name: str) -> str:
    """The part that a variable or operation belongs to: two levels in a backbone, one in the head.

    The separable halves of a layer (``aspp1_depthwise``, ``aspp1_pointwise``) count as one part.
    """
    first, *rest = name.split("/")
    if first in ("decoder", "logits", "meta_architecture", "image_pooling", "concat_projection") or first[:4] == "aspp":
        return first.removesuffix("_depthwise").removesuffix("_pointwise")
    return f"{first}/{rest[0]}" if len(rest) > 1 else first


def run(words: list[str]) -> int:
    """Print the summary of the flags on a command line; ``--json`` among them gives JSON. Returns the exit status."""
    given = parse(SummaryConfig, [word for word in words if word != "--json"])
    if given.get("dataset"):
        given = {"num_classes": get_dataset(given["dataset"]).num_classes, **given}
    config = resolve(SummaryConfig, given)
    summary = summarize(config)
    if "--json" in words:
        content = asdict(summary)
        content.pop("stages")
        print(json.dumps(content))
    else:
        print("\n".join(_table(config, summary)))
    return 0


def _table(config: SummaryConfig, summary: ModelSummary) -> list[str]:
    width = max(len(stage.name) for stage in summary.stages)
    row = f"{{:<{width}}}  {{:>5}}  {{:>12}}  {{:>17}}"
    lines = [row.format("stage", "convs", "parameters", "multiply-adds"), "-" * (width + 40)]
    for stage in summary.stages:
        lines.append(row.format(stage.name, stage.convolutions, f"{stage.parameters:,}", f"{stage.multiply_adds:,}"))
    convolutions = sum(stage.convolutions for stage in summary.stages)
    lines.append("-" * (width + 40))
    lines.append(row.format("total", convolutions, f"{summary.parameters:,}", f"{summary.multiply_adds:,}"))
    lines.append("")
    height, image_width = config.crop_size
    lines.append(f"{len(summary.variables)} variables; one image of {height}x{image_width} pixels (height x width)")
    for name, stride in sorted(summary.end_points.items(), key=lambda item: item[1]):
        lines.append(f"stride {stride:>2}  {name}")
    return lines
