"""Expressions over metadata, as stop conditions and pipeline actions hold them: ``accuracy > 0.99``."""

import operator
import re
from collections.abc import Callable, Mapping
from typing import Any

_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    "==": operator.eq,
    "!=": operator.ne,
    ">": operator.gt,
    "<": operator.lt,
}
_EXPRESSION = re.compile(r"\s*(?:metadata\.)?([\w.\-/]+)\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*")


def holds(expression: str, metadata: Mapping[str, Any]) -> bool:
    """Whether a comparison (or several, joined by ``and``) is true; one of an unknown name is not."""
    return all(_compare(part, metadata) for part in re.split(r"\s+and\s+|&&", expression))


def _compare(expression: str, metadata: Mapping[str, Any]) -> bool:
    match = _EXPRESSION.fullmatch(expression)
    if match is None or match[1] not in metadata:
        return False
    value, limit = metadata[match[1]], match[3].strip("\"'")
    try:
        return _COMPARISONS[match[2]](float(value), float(limit))
    except (TypeError, ValueError):
        return _COMPARISONS[match[2]](str(value), limit)
