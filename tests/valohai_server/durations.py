"""Time limits: seconds or text such as ``1h 30m``."""

import re
from typing import Any

from tests.valohai_server.answers import invalid

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def seconds(value: Any) -> float:
    """Seconds; 0 for none.

    Raises:
        ApiError: for any other text.
    """
    if value is None or value == "":
        return 0.0
    if isinstance(value, (int, float)):
        return float(value)
    if hasattr(value, "total_seconds"):
        return float(value.total_seconds())
    parts = re.findall(r"([0-9.]+)\s*([smhdw]?)", str(value).lower())
    if not parts:
        raise invalid("time_limit", f"{value!r} is not a time.")
    return sum(float(number) * _UNITS[unit] for number, unit in parts)
