"""From a step and the values that were sent to the commands that run."""

import json
from typing import Any

from valohai_yaml.commands import join_command
from valohai_yaml.excs import ValidationErrors
from valohai_yaml.objs import Parameter, Step

from tests.valohai_server.answers import ApiError, invalid


def parameter_values(step: Step, sent: dict[str, Any]) -> dict[str, Any]:
    """Typed values of the parameters that have one: sent, else (but for flags) the step's default.

    Raises:
        ApiError: for an unknown name, a value of the wrong type or out of its bounds, a missing one.
    """
    unknown = sorted(set(sent) - set(step.parameters))
    if unknown:
        raise invalid("parameters", f"Unknown parameters: {', '.join(unknown)}")
    values: dict[str, Any] = {}
    for name, parameter in step.parameters.items():
        value = _plain(sent.get(name))
        if value is None and parameter.type != "flag":
            value = parameter.default
        if value is None:
            if not parameter.optional and not parameter.multiple:
                raise invalid("parameters", f"{name}: This parameter is required.", "required")
            continue
        values[name] = typed(parameter, value)
    return values


def typed(parameter: Parameter, value: Any) -> Any:
    if parameter.type == "flag":
        if isinstance(value, str) and value.lower() in ("true", "false", "1", "0", "yes", "no", ""):
            return value.lower() in ("true", "1", "yes")
        return bool(value)
    if parameter.multiple and not isinstance(value, list):
        value = [value]
    if parameter.type == "string":
        value = [str(atom) for atom in value] if isinstance(value, list) else str(value)
    try:
        return parameter.validate(value)
    except ValidationErrors as error:
        raise invalid("parameters", f"{parameter.name}: {error}") from None


def _plain(value: Any) -> Any:
    """The value inside ``{"style": "single", "rules": {"value": X}}``."""
    if isinstance(value, dict):
        if value.get("style") != "single":
            raise invalid("parameters", f"{json.dumps(value)}: an execution takes single values only")
        return value.get("rules", {}).get("value")
    return value


def interpolated(step: Step, values: dict[str, Any], command: str | list[str] | None) -> list[str]:
    try:
        return step.build_command(dict(values), command)
    except (ValueError, KeyError, TypeError) as error:
        raise ApiError(400, {"command": [{"message": str(error), "code": "invalid"}]}) from None


def as_script(pieces: list[str], reading: str) -> dict[str, str]:
    """Name -> content of the files that a shell runs, ``main`` first to be run.

    Args:
        pieces: interpolated commands.
        reading: ``script`` or ``stepwise``, see :class:`Settings`.
    """
    if reading == "script":
        return {"main": join_command(pieces, "\n") + "\n"}
    files = {f"piece-{number}": piece + "\n" for number, piece in enumerate(pieces)}
    lines = [f'"$SHELL_OF_STEPS" "$(dirname "$0")/{name}" || exit $?' for name in files]
    return {"main": "\n".join(lines) + "\n", **files}
