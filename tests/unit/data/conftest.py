"""A tiny data set, drawn once, and a way to change single files of it."""

import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from deeplab.data import sample

ROOT = "ADEChallengeData2016"

Rewrite = Callable[[Mapping[str, bytes | None]], Path]


@pytest.fixture(scope="session")
def sample_zip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight training and two validation pairs; never changed by a test."""
    path = tmp_path_factory.mktemp("sample") / "scenes.zip"
    sample.run({"output_path": str(path), "size": 8})
    return path


@pytest.fixture
def rewritten(sample_zip: Path, tmp_path: Path) -> Rewrite:
    """Copies the tiny data set with some members replaced, added, or (None) left out."""

    def rewrite(changes: Mapping[str, bytes | None]) -> Path:
        path = tmp_path / "changed.zip"
        with zipfile.ZipFile(sample_zip) as before, zipfile.ZipFile(path, "w") as after:
            members: dict[str, bytes | None] = {name: before.read(name) for name in before.namelist()}
            members.update({f"{ROOT}/{name}": content for name, content in changes.items()})
            for name, content in members.items():
                if content is not None:
                    after.writestr(name, content)
        return path

    return rewrite
