"""Named sets of flow parameters; each names a data set and a network.

A preset is a YAML file in this folder, with the same sections as a run's own ``--config`` file.
"""

from functools import cache
from importlib.resources import files
from typing import Any

import yaml

_FOLDER = files(__name__)


def names() -> list[str]:
    """The presets there are."""
    return sorted(path.name.removesuffix(".yaml") for path in _FOLDER.iterdir() if path.name.endswith(".yaml"))


@cache
def load(name: str) -> dict[str, Any]:
    """A preset's content: section -> flag -> value."""
    content: dict[str, Any] = yaml.safe_load((_FOLDER / f"{name}.yaml").read_text(encoding="utf-8"))
    return content
