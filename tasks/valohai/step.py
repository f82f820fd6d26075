"""A request for an execution, checked against the step in ``valohai.yaml`` before anything is sent.

Every default is sent as a value: the service applies none of a flag. What has no value is left out; null is never sent.
"""

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import valohai_yaml
from valohai_yaml.excs import ValidationErrors
from valohai_yaml.objs import Config, Parameter, Step

from tasks.valohai.errors import InvalidRequest
from tasks.valohai.records import Execution

T = TypeVar("T")
_TRUE, _FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


@dataclass(frozen=True)
class ExecutionRequest:
    """What is asked of the service; see facts on ``POST /executions/``.

    Attributes:
        commit: identifier of the code.
        step: exact name of the step.
        parameters: name -> value, none of them None.
        inputs: name -> addresses.
        environment: UUID or slug of the machine type; None: the step's or the project's.
        title: shown in lists.
        tags: besides the stage's key.
        environment_variables: name -> value.
        time_limit: seconds that it may run.
        no_output_timeout: seconds that it may be silent.
        priority: in its queue.
    """

    commit: str
    step: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, Sequence[str]] = field(default_factory=dict)
    environment: str | None = None
    title: str | None = None
    tags: Sequence[str] = ()
    environment_variables: Mapping[str, str] = field(default_factory=dict)
    time_limit: int | None = None
    no_output_timeout: int | None = None
    priority: int | None = None

    @property
    def kind(self) -> type[Execution]:
        """What it makes."""
        return Execution

    @property
    def filters(self) -> Mapping[str, str]:
        """The executions to look through for one that exists."""
        return {"step": self.step}

    def payload(self, project_id: str, key_tag: str) -> dict[str, Any]:
        """The body of the request."""
        timeout = self.no_output_timeout
        content: dict[str, Any] = {
            "project": project_id,
            "commit": self.commit,
            "step": self.step,
            "inputs": {name: list(links) for name, links in self.inputs.items()},
            "parameters": dict(self.parameters),
            "environment_variables": dict(self.environment_variables),
            "tags": [key_tag, *(tag for tag in self.tags if tag != key_tag)],
            "runtime_config": {} if timeout is None else {"no_output_timeout": timeout},
        }
        optional = {
            "environment": self.environment,
            "title": self.title,
            "time_limit": self.time_limit,
            "priority": self.priority,
        }
        return {**content, **{name: value for name, value in optional.items() if value is not None}}


def read_config(yaml_path: Path) -> Config:
    """The content of a yaml file.

    Raises:
        InvalidRequest: for a file that is no valid valohai.yaml.
    """
    try:
        config: Config = valohai_yaml.parse(yaml_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{yaml_path}: cannot be read ({error.strerror}); the steps stand there") from None
    except Exception as error:  # the parser's own errors share no root
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequest(f"{yaml_path}: is not valid ({first}); see `vh lint {yaml_path}`") from None
    return config


def named_item(kind: str, items: Mapping[str, T], name: str) -> T:
    """The item of a name, or the only one whose name begins so, as ``vh`` finds it.

    Args:
        kind: for the error: step, pipeline or task.
        items: name -> item.
        name: the whole name, or its beginning in any case.

    Raises:
        InvalidRequest: when no item, or more than one, is meant.
    """
    if name in items:
        return items[name]
    found = [title for title in items if title.lower().startswith(name.lower())]
    if len(found) != 1:
        problem = f"is no {kind}" if not found else f"may be any of {', '.join(found)}"
        raise InvalidRequest(f"{name!r} {problem}; there are: {', '.join(items) or 'none'}")
    return items[found[0]]


def read_step(yaml_path: Path, name: str) -> Step:
    """A step of a yaml file, by its name or the beginning of it.

    Raises:
        InvalidRequest: for a file that is no valid valohai.yaml, or a step that is not there or not unambiguous.
    """
    config = read_config(yaml_path)
    try:
        return named_item("step", config.steps, name)
    except InvalidRequest as error:
        raise InvalidRequest(f"{yaml_path}: {error}") from None


def request_for(
    step: Step, commit: str, parameters: Mapping[str, Any], inputs: Mapping[str, str | Sequence[str]]
) -> ExecutionRequest:
    """The request for a run of a step; set further fields with ``dataclasses.replace``.

    The step's environment, image and command are left to the service, which takes them from the commit.

    Args:
        step: as ``read_step`` found it.
        commit: identifier of the code.
        parameters: name -> value; None: not given.
        inputs: name -> address or addresses; an empty list: none, in spite of a default.

    Raises:
        InvalidRequest: for what the step does not allow; names all of it.
    """
    problems: list[str] = []
    values = checked_parameters(step, parameters, problems)
    links = checked_inputs(step, inputs, problems)
    if problems:
        raise InvalidRequest(f"step {step.name!r}: {'; '.join(problems)}")
    variables = {name: item.default for name, item in step.environment_variables.items() if item.default is not None}
    limit, silence = step.time_limit, step.no_output_timeout
    return ExecutionRequest(
        commit=commit,
        step=step.name,
        parameters=values,
        inputs=links,
        environment_variables={name: str(value) for name, value in variables.items()},
        time_limit=int(limit.total_seconds()) if limit else None,
        no_output_timeout=int(silence.total_seconds()) if silence else None,
    )


def checked_parameters(
    step: Step, given: Mapping[str, Any], problems: list[str], supplied: Collection[str] = ()
) -> dict[str, Any]:
    """Every parameter of a step that has a value, as the service takes it.

    Args:
        step: as ``read_step`` found it.
        given: name -> value; None: not given.
        problems: receives what the step does not allow.
        supplied: names that get their value elsewhere, and are left out.
    """
    problems.extend(unknown("parameter", given, step.parameters))
    values: dict[str, Any] = {}
    for name, parameter in step.parameters.items():
        if name in supplied:
            continue
        value = given.get(name)
        value = parameter.default if value is None else value
        if value is None:
            # A flag is optional in any case. False is a value too: it may be passed on as --flag=false.
            if not (parameter.optional or parameter.type == "flag"):
                problems.append(f"parameter {name} needs a value")
            continue
        try:
            values[name] = checked_value(parameter, value)
        except ValueError as error:
            problems.append(str(error))
    return values


def checked_value(parameter: Parameter, value: Any) -> Any:
    """A value of a parameter, as the service takes it.

    Raises:
        ValueError: if the parameter does not allow it.
    """
    try:
        return _cast(parameter, value)
    except (ValidationErrors, ValueError) as error:
        raise ValueError(f"parameter {parameter.name}: {_one_line(error)}") from None


def _cast(parameter: Parameter, value: Any) -> Any:
    if parameter.type == "flag":
        return _flag(value)
    if parameter.multiple:
        items = list(value) if isinstance(value, (list, tuple)) else [value]
        return parameter.validate([_atom(parameter, item) for item in items])
    return parameter.validate(_atom(parameter, value))


def _atom(parameter: Parameter, value: Any) -> Any:
    if parameter.type == "string":
        return _text(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} is not a finite number")
    return value


def _text(value: Any) -> str:
    """A value as the command line has it: ``513,513``, ``true``."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return ",".join(_text(item) for item in value)
    return str(value)


def _flag(value: Any) -> bool:
    text = str(value).lower()
    if text not in (*_TRUE, *_FALSE):
        raise ValueError(f"{value!r} is neither true nor false")
    return text in _TRUE


def checked_inputs(
    step: Step, given: Mapping[str, str | Sequence[str]], problems: list[str], supplied: Collection[str] = ()
) -> dict[str, list[str]]:
    """The addresses of every input of a step.

    Args:
        step: as ``read_step`` found it.
        given: name -> address or addresses; an empty list: none, in spite of a default.
        problems: receives what the step does not allow.
        supplied: names of inputs that get their files elsewhere.
    """
    problems.extend(unknown("input", given, step.inputs))
    links: dict[str, list[str]] = {}
    for name, item in step.inputs.items():
        value = given.get(name)
        value = item.default if value is None else value
        links[name] = [str(link) for link in _listed(value)]
        if not links[name] and not item.optional and name not in supplied:
            problems.append(f"input {name} needs an address, such as datum://… or azure://ACCOUNT/CONTAINER/FILE")
        problems.extend(
            f"input {name}: {link!r} is no address; it must hold ://" for link in links[name] if "://" not in link
        )
    return links


def _listed(value: Any) -> list[Any]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


def unknown(kind: str, given: Iterable[str], known: Collection[str]) -> list[str]:
    """A sentence for each name that is not known, with the nearest one that is."""
    found = []
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(known) or 'none'}"
            found.append(f"has no {kind} {name} ({hint})")
    return found


def _one_line(error: Exception) -> str:
    errors = getattr(error, "errors", None)
    return "; ".join(str(item) for item in errors) if errors else str(error)
