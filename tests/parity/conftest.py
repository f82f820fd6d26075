"""Where the original's recorded numbers and published weights are, outside the repository."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


def _shared(*parts: str) -> Path:
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"needs {'/'.join(parts)} in a folder 'shared' beside the repository")
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
