"""Where the original's recorded numbers and published weights are, outside the repository."""

import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from deeplab.config import TrainingConfig, validate

SHARED = Path(__file__).resolve().parents[3] / "shared"
GOLDENS = SHARED / "goldens"
# Row of the closing table -> column -> largest error.
_errors: dict[str, dict[str, float]] = {}


def read_cases(name: str) -> list[Any]:
    """The recorded cases of a file; none where the numbers are not there (the test then is skipped as empty)."""
    path = GOLDENS / name
    return json.loads(path.read_text()) if path.exists() else []


def training_config(flags: Mapping[str, Any]) -> TrainingConfig:
    """A configuration whose number of classes no registered data set has: nothing is compared with one."""
    bound = {name: value for name, value in flags.items() if name in ("label_weights", "decoder_output_is_logits")}
    config = validate(TrainingConfig, {name: value for name, value in flags.items() if name not in bound})
    return config.model_copy(update=bound)


@pytest.fixture
def note_error(request: pytest.FixtureRequest) -> Callable[[str, float], None]:
    """Note an error of this configuration for the table that closes the run."""
    row = request.node.callspec.id

    def note(column: str, error: float) -> None:
        columns = _errors.setdefault(row, {})
        columns[column] = max(columns.get(column, 0.0), float(error))

    return note


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print configuration x largest error, relative to the largest value of what is compared."""
    if not _errors:
        return
    columns = list(dict.fromkeys(column for row in _errors.values() for column in row))
    width = max(len(row) for row in _errors)
    terminalreporter.section("largest errors against the original")
    terminalreporter.write_line(" ".join([" " * width, *(f"{column:>12}" for column in columns)]))
    for row, errors in _errors.items():
        cells = (f"{errors[column]:12.1e}" if column in errors else " " * 12 for column in columns)
        terminalreporter.write_line(" ".join([row.ljust(width), *cells]))


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        missing = f"needs {'/'.join(parts)} in a folder 'shared' beside the repository"
        # Where the numbers must be, their absence is a failure.
        (pytest.fail if os.environ.get("CI") else pytest.skip)(missing)
    return path


@pytest.fixture(scope="session")
def goldens() -> Path:
    return _shared("goldens")


@pytest.fixture(scope="session")
def checkpoints() -> Path:
    return _shared("checkpoints")


@pytest.fixture(scope="session")
def real_data() -> Path:
    return _shared("data")


@pytest.fixture(scope="session")
def weights(goldens: Path) -> ModuleType:
    """The deterministic weights, images and labels that the goldens were recorded with."""
    spec = importlib.util.spec_from_file_location("weights", goldens / "weights.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
