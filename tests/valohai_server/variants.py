"""From a task's parameters to the parameters of its executions."""

import itertools
import random
from typing import Any

from tests.valohai_server.answers import invalid

Values = dict[str, Any]
TYPES = ("grid_search", "random_search", "manual_search", "bayesian_tpe", "distributed")
DEFAULT_COUNT = 10


def expand(kind: str, parameters: dict[str, Any], configuration: dict[str, Any]) -> list[Values]:
    """The values of each execution, in order.

    Bayesian search draws at random: it has to make executions, not to find optima.

    Raises:
        ApiError: for an unknown type, style or rule.
    """
    count = int(configuration.get("execution_count") or DEFAULT_COUNT)
    if kind == "distributed":
        return [{name: _choices(value)[0] for name, value in parameters.items()} for _ in range(count)]
    if kind in ("random_search", "bayesian_tpe"):
        return [{name: _draw(value, number) for name, value in parameters.items()} for number in range(count)]
    choices = {name: _choices(value) for name, value in parameters.items()}
    if kind == "manual_search":
        length = max((len(values) for values in choices.values()), default=1)
        if any(len(values) not in (1, length) for values in choices.values()):
            raise invalid("parameters", "A manual search takes as many items of each varied parameter.")
        return [
            {name: values[at if len(values) > 1 else 0] for name, values in choices.items()} for at in range(length)
        ]
    if kind == "grid_search":
        return [dict(zip(choices, values, strict=True)) for values in itertools.product(*choices.values())]
    raise invalid("type", f"{kind}: give one of {', '.join(TYPES)}", "invalid_choice")


def is_variant(value: Any) -> bool:
    return isinstance(value, dict) and "style" in value


def _choices(value: Any) -> list[Any]:
    if not is_variant(value):
        return [value]
    rules = value.get("rules") or {}
    try:
        match value["style"]:
            case "single":
                return [rules.get("value")]
            case "multiple":
                return [_number(item, rules) for item in rules["items"]]
            case "linear":
                steps = int((rules["end"] - rules["start"]) / rules["step"] + 1e-9) + 1
                return [_number(rules["start"] + at * rules["step"], rules) for at in range(steps)]
            case "logspace":
                return [_number(item, rules) for item in _logspace(rules)]
            case "random":
                return [_draw(value, number) for number in range(int(rules.get("count", DEFAULT_COUNT)))]
    except (KeyError, TypeError, ZeroDivisionError) as error:
        raise invalid("parameters", f"rules of {value['style']}: {type(error).__name__} {error}") from None
    raise invalid("parameters", f"unknown style {value['style']}")


def _logspace(rules: dict[str, Any]) -> list[float]:
    base, count = rules.get("base", 10), int(rules["count"])
    width = (rules["end"] - rules["start"]) / max(count - 1, 1)
    return [base ** (rules["start"] + at * width) for at in range(count)]


def _draw(value: Any, number: int) -> Any:
    if not is_variant(value):
        return value
    rules = value.get("rules") or {}
    chance = random.Random(f"{rules.get('seed', 0)}/{number}")
    if value["style"] == "random":
        return _number(chance.uniform(float(rules["min"]), float(rules["max"])), rules)
    return chance.choice(_choices(value))


def _number(value: Any, rules: dict[str, Any]) -> Any:
    if rules.get("integerify"):
        return round(float(value))
    return float(value) if rules.get("numberify") else value
