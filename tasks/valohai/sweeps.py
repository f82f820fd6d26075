"""A task of ``valohai.yaml`` as a request: one step over variants of its parameters, and a table of what came of it."""

from collections.abc import Mapping, Sequence
from typing import Any

from valohai_yaml.objs import Config, Parameter, Step
from valohai_yaml.objs import Task as TaskDefinition

from tasks.valohai.errors import InvalidRequest
from tasks.valohai.groups import GroupRequest
from tasks.valohai.records import Execution, Task
from tasks.valohai.step import checked_inputs, checked_parameters, checked_value, unknown


def sweep_request(
    config: Config,
    task: TaskDefinition,
    commit: str,
    parameters: Mapping[str, Any],
    inputs: Mapping[str, str | Sequence[str]],
    *,
    environment: str | None = None,
) -> GroupRequest[Task]:
    """The request for a run of a task.

    Args:
        config: the yaml's content.
        task: one of its tasks.
        commit: identifier of the code.
        parameters: name -> value, or several to vary it over: a list, or for a number a text with commas.
        inputs: name -> address or addresses.
        environment: id of the machine type; None: the step's, or the project's.

    Raises:
        InvalidRequest: for what the step does not allow; names all of it.
    """
    step = config.steps.get(task.step)
    if step is None:
        raise InvalidRequest(f"task {task.name!r}: the yaml has no step {task.step!r}; see `vh lint`")
    content = TaskDefinition.serialize_to_template(task)
    problems = unknown("parameter", parameters, step.parameters)
    variants = _variants(step, content.pop("variant_parameters", {}), parameters, problems)
    plain = {name: value for name, value in parameters.items() if name in step.parameters and name not in variants}
    values = checked_parameters(step, plain, problems, variants)
    links = checked_inputs(step, inputs, problems)
    if problems:
        raise InvalidRequest(f"task {task.name!r}: {'; '.join(problems)}")
    single = {name: {"style": "single", "rules": {"value": value}} for name, value in values.items()}
    content |= {"commit": commit, "step": step.name, "parameters": {**single, **variants}, "inputs": links}
    return GroupRequest(Task, task.name, _as_a_task(content, environment))


def _variants(
    step: Step, known: Mapping[str, Any], given: Mapping[str, Any], problems: list[str]
) -> dict[str, dict[str, Any]]:
    """How parameters vary: as the task says, but for those that are given."""
    variants = {name: value for name, value in known.items() if name not in given}
    for name, value in given.items():
        parameter = step.parameters.get(name)
        items = _several(parameter, value) if parameter is not None else None
        if parameter is None or items is None:
            continue
        try:
            checked = [checked_value(parameter, item) for item in items]
            variants[name] = {"style": "multiple", "rules": {"items": checked}}
        except ValueError as error:
            problems.append(str(error))
    return variants


def _several(parameter: Parameter, value: Any) -> Sequence[Any] | None:
    """The values to vary a parameter over; None for a single one."""
    if parameter.multiple:
        return None
    if isinstance(value, (list, tuple)):
        return value
    number = parameter.type in ("integer", "float")
    return [item.strip() for item in value.split(",")] if number and isinstance(value, str) and "," in value else None


def _as_a_task(content: Mapping[str, Any], environment: str | None) -> dict[str, Any]:
    """A node's template, spelt as a task's own request is."""
    result = {"configuration": {}, **content}
    if "stop_expression" in result:
        result["task_stop_expression"] = result.pop("stop_expression")
    if "on_child_error" in result:
        result["on_child_error"] = result["on_child_error"].replace("-", "_")
    return result if environment is None else {**result, "environment": environment}


def varied(request: GroupRequest[Task]) -> list[str]:
    """The parameters that differ between the executions of a task."""
    return [name for name, value in request.content["parameters"].items() if value["style"] != "single"]


def sweep_table(executions: Sequence[Execution], parameters: Sequence[str]) -> list[dict[str, Any]]:
    """A row per execution: its number, status, what varies and its last metrics; the first one first.

    Args:
        executions: of a task.
        parameters: names of those that differ.
    """
    rows = []
    for execution in sorted(executions, key=lambda one: one.counter or 0):
        row: dict[str, Any] = {"execution": execution.counter, "status": execution.status}
        row |= {name: execution.parameters.get(name) for name in parameters}
        metrics = execution.cumulative_metadata.items()
        rows.append(row | {name: value for name, value in metrics if isinstance(value, (int, float, str))})
    return rows
