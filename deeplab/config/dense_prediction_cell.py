"""The description of a dense prediction cell (Chen et al. 2018): a searched replacement of ASPP, read from JSON."""

import json
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_SHIPPED = resources.files("deeplab.config") / "cells"


class CellBranch(BaseModel):
    """One branch: what it does and to what.

    Attributes:
        op: a separable convolution (plain where the kernel is 1), or average pooling over a grid.
        input: an earlier branch, or -1 for the backbone's features.
        kernel: side of the convolution.
        rate: vertical and horizontal dilation at output stride 16.
        grid_size: rows and columns of the pooling grid.
        target_size: accepted for the original's sake; pooled features return to the features' size.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    op: Literal["conv", "pyramid_pooling"]
    input: int = Field(ge=-1)
    kernel: int = Field(3, ge=1)
    rate: tuple[int, int] = (1, 1)
    grid_size: tuple[int, int] | None = None
    target_size: tuple[int, int] | None = None

    @model_validator(mode="after")
    def _check(self) -> "CellBranch":
        if self.op == "pyramid_pooling" and self.grid_size is None:
            raise ValueError("a pyramid_pooling branch needs a grid_size of [rows, columns]")
        return self


Cell = tuple[CellBranch, ...]


def read_cell(name: str) -> list[dict[str, Any]]:
    """The content of a JSON file, or of a shipped one if no such file exists: the published cell goes by its own name.

    Raises:
        ValueError: telling what is wrong with the file.
    """
    path = Path(name)
    shipped = _SHIPPED / path.name
    if not path.exists() and not shipped.is_file():
        offered = ", ".join(sorted(entry.name for entry in _SHIPPED.iterdir()))
        raise ValueError(f"no such file; name a JSON file or a published cell ({offered})")
    try:
        text = (path if path.exists() else shipped).read_text(encoding="utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"not a JSON file ({error})") from None
    if not isinstance(content, list):
        raise ValueError("expected a list of branches")
    return content


def check_inputs(cell: Cell) -> None:
    """Every branch may only use earlier ones.

    Raises:
        ValueError: naming the first that does not.
    """
    for number, branch in enumerate(cell):
        if branch.input >= number:
            raise ValueError(f"branch {number} takes branch {branch.input} as input, which is not an earlier one")
