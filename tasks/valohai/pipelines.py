"""A pipeline of ``valohai.yaml`` as a request; what its nodes are given is checked before anything is sent."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from valohai_yaml.objs import Config
from valohai_yaml.objs import Pipeline as PipelineDefinition
from valohai_yaml.pipelines.conversion import PipelineConverter

from tasks.valohai.errors import InvalidRequest
from tasks.valohai.groups import GroupRequest
from tasks.valohai.records import Pipeline
from tasks.valohai.step import checked_inputs, checked_parameters, unknown

Content = dict[str, Any]
# What an edge may end in that a request says too.
_TARGETS = ("input", "parameter")


@dataclass(frozen=True)
class NodeValues:
    """What is given for the nodes of a pipeline.

    Attributes:
        parameters: node -> parameter -> value.
        inputs: node -> input -> address or addresses.
    """

    parameters: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    inputs: Mapping[str, Mapping[str, str | Sequence[str]]] = field(default_factory=dict)


def pipeline_request(
    config: Config,
    pipeline: PipelineDefinition,
    commit: str,
    values: NodeValues,
    *,
    environment: str | None = None,
) -> GroupRequest[Pipeline]:
    """The request for a run of a pipeline.

    Args:
        config: the yaml's content.
        pipeline: one of its pipelines.
        commit: identifier of the code.
        values: what differs from the yaml's defaults.
        environment: id of the machine type for every node; None: each step's, or the project's.

    Raises:
        InvalidRequest: for what the pipeline or a step does not allow; names all of it.
    """
    converted = PipelineConverter(config=config, commit_identifier=commit).convert_pipeline(pipeline)
    nodes = {node["name"]: node for node in converted["nodes"]}
    problems = unknown("node", dict.fromkeys([*values.parameters, *values.inputs]), nodes)
    for name, node in nodes.items():
        edges = [edge for edge in converted["edges"] if edge["target_node"] == name]
        found: list[str] = []
        _fill(config, node, edges, (values.parameters.get(name, {}), values.inputs.get(name, {})), found)
        problems += [f"node {name}: {problem}" for problem in found]
        if environment is not None and "template" in node:
            node["template"]["environment"] = environment
    if problems:
        raise InvalidRequest(f"pipeline {pipeline.name!r}: {'; '.join(problems)}")
    reuse = {"reuse_executions": True} if pipeline.reuse_executions else {}
    return GroupRequest(Pipeline, pipeline.name, {**reuse, **converted})


def _fill(
    config: Config,
    node: Content,
    edges: Sequence[Content],
    given: tuple[Mapping[str, Any], Mapping[str, str | Sequence[str]]],
    problems: list[str],
) -> None:
    """Put every value into a node's template, which holds the defaults."""
    parameters, inputs = given
    template = node.get("template")
    if template is None:
        if parameters or inputs:
            problems.append(f"takes no parameters and inputs, as a node of type {node['type']}")
        return
    step = config.steps.get(template["step"])
    if step is None:
        raise InvalidRequest(f"node {node['name']}: the yaml has no step {template['step']!r}; see `vh lint`")
    supplied = {kind: {edge["target_key"] for edge in edges if edge["target_type"] == kind} for kind in _TARGETS}
    if node.get("edge-merge-mode", "replace") == "replace":
        problems += [
            f"input {name} comes from another node and cannot be given" for name in inputs if name in supplied["input"]
        ]
    # A node that is a task brings its variants along; a value that is given takes their place.
    defaults = template["parameters"]
    variants = {name: value for name, value in defaults.items() if is_variant(value) and name not in parameters}
    plain = {name: value for name, value in defaults.items() if not is_variant(value)}
    checked = checked_parameters(step, {**plain, **parameters}, problems, {*variants, *supplied["parameter"]})
    template["parameters"] = {**checked, **variants}
    template["inputs"] = checked_inputs(step, {**template["inputs"], **inputs}, problems, supplied["input"])


def is_variant(value: Any) -> bool:
    """Whether a parameter's value says how it varies: ``{"style": …, "rules": …}``."""
    return isinstance(value, Mapping) and "style" in value
