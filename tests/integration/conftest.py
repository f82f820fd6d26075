"""Commands as a person types them, in processes of their own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

Result = subprocess.CompletedProcess[str]
Flow = Callable[..., Result]


@pytest.fixture(scope="session")
def deeplab_in() -> Callable[[Path], Callable[..., Result]]:
    """For a folder, what runs ``deeplab STAGE …`` there."""

    def at(folder: Path) -> Callable[..., Result]:
        def run(*arguments: str) -> Result:
            command = [sys.executable, "-m", "deeplab", *arguments]
            return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)

        return run

    return at


@pytest.fixture
def deeplab(tmp_path: Path, deeplab_in: Callable[[Path], Callable[..., Result]]) -> Callable[..., Result]:
    """Run ``deeplab STAGE …`` in the test's folder."""
    return deeplab_in(tmp_path)


@pytest.fixture
def flow_environment(tmp_path: Path) -> dict[str, str]:
    """Prefect's embedded API with a database of its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    return {
        **kept,
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PYTHONPATH": str(ROOT),
    }


@pytest.fixture
def flow(tmp_path: Path, flow_environment: dict[str, str]) -> Callable[..., Result]:
    """Run ``python -m flows.train …`` in the test's folder."""

    def run(*arguments: str) -> Result:
        command = [sys.executable, "-m", "flows.train", *arguments]
        return subprocess.run(command, cwd=tmp_path, env=flow_environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def shared() -> Path:
    if not SHARED.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("needs a folder 'shared' beside the repository")
    return SHARED
