"""A request for an execution, checked against the step in ``valohai.yaml`` before anything is sent.

Every parameter is sent with its value: the service applies no default of a flag. What has no value is left out; null is
never sent.
"""

import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import valohai_yaml
from valohai_yaml.excs import ValidationErrors
from valohai_yaml.objs import Config, Parameter, Step

from tasks.valohai.errors import InvalidRequest
from tasks.valohai.records import Execution

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


def read_step(yaml_path: Path, name: str) -> Step:
    """A step of a yaml file, by its name or the beginning of it, as ``vh`` finds it.

    Raises:
        InvalidRequest: for a file that is no valid valohai.yaml, or a step that is not there or not unambiguous.
    """
    try:
        config: Config = valohai_yaml.parse(yaml_path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidRequest(f"{yaml_path}: cannot be read ({error.strerror}); the steps stand there") from None
    except Exception as error:  # the parser's own errors share no root
        first = str(error).strip().partition("\n")[0]
        raise InvalidRequest(f"{yaml_path}: is not valid ({first}); see `vh lint {yaml_path}`") from None
    if name in config.steps:
        return config.steps[name]
    found = [step for title, step in config.steps.items() if title.lower().startswith(name.lower())]
    if len(found) != 1:
        problem = "is no step" if not found else f"may be any of {', '.join(step.name for step in found)}"
        raise InvalidRequest(f"{yaml_path}: {name!r} {problem}; there are: {', '.join(config.steps)}")
    return found[0]


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
    values = _parameters(step, parameters, problems)
    links = _inputs(step, inputs, problems)
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


def _parameters(step: Step, given: Mapping[str, Any], problems: list[str]) -> dict[str, Any]:
    problems.extend(_unknown("parameter", given, step.parameters))
    values: dict[str, Any] = {}
    for name, parameter in step.parameters.items():
        value = given.get(name)
        value = parameter.default if value is None else value
        if value is None and parameter.type == "flag":
            value = False
        if value is None:
            if not parameter.optional:
                problems.append(f"parameter {name} needs a value")
            continue
        try:
            values[name] = _checked(parameter, value)
        except (ValidationErrors, ValueError) as error:
            problems.append(f"parameter {name}: {_one_line(error)}")
    return values


def _checked(parameter: Parameter, value: Any) -> Any:
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


def _inputs(step: Step, given: Mapping[str, str | Sequence[str]], problems: list[str]) -> dict[str, list[str]]:
    problems.extend(_unknown("input", given, step.inputs))
    links: dict[str, list[str]] = {}
    for name, item in step.inputs.items():
        value = given.get(name)
        value = item.default if value is None else value
        links[name] = [str(link) for link in _listed(value)]
        if not links[name] and not item.optional:
            problems.append(f"input {name} needs an address, such as datum://… or azure://ACCOUNT/CONTAINER/FILE")
        problems.extend(
            f"input {name}: {link!r} is no address; it must hold ://" for link in links[name] if "://" not in link
        )
    return links


def _listed(value: Any) -> list[Any]:
    if not value:
        return []
    return [value] if isinstance(value, str) else list(value)


def _unknown(kind: str, given: Iterable[str], known: Mapping[str, Any]) -> list[str]:
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
