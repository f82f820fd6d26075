"""The commands of docs/own-data.md, as they stand there, on a slice of CamVid."""

import json
import os
import re
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.integration.conftest import ROOT, SHARED

CAMVID = SHARED / "data" / "camvid.zip"
PAIRS = {"train": 4, "val": 2, "test": 1}

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not CAMVID.exists(), reason="needs data/camvid.zip in a folder 'shared' beside the repository"),
]


def _blocks(language: str) -> list[str]:
    text = (ROOT / "docs" / "own-data.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the description of the page, and some pairs of each split."""
    (description,) = _blocks("yaml")
    assert len(description.splitlines()) <= 10
    (tmp_path / "camvid.yaml").write_text(description, encoding="utf-8")
    with zipfile.ZipFile(CAMVID) as whole, zipfile.ZipFile(tmp_path / "camvid.zip", "w") as part:
        names = sorted(name for name in whole.namelist() if not name.endswith("/"))
        for split, count in PAIRS.items():
            for kind in ("images", "labels"):
                for name in [name for name in names if f"/{kind}/{split}/" in name][:count]:
                    part.writestr(name, whole.read(name))
    return tmp_path


def _run(line: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a line of the page, with fewer steps on smaller batches."""
    line = line.replace("steps=3000", "steps=2").replace("batch_size=8", "batch_size=2")
    words = shlex.split(line)
    words[0] = str(Path(sys.executable).with_name(words[0]))
    done = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{line}\n{done.stderr[-3000:]}"
    return done.stdout


def test_stage_by_stage(folder: Path) -> None:
    inspect, stages, _ = _blocks("sh")
    told = _run(inspect, folder, dict(os.environ))
    assert re.search(r"^train +4 +360x480", told, re.MULTILINE) and "sign symbol" in told
    assert (folder / "samples.png").stat().st_size > 10_000
    for line in stages.splitlines():
        _run(line, folder, dict(os.environ))
    scores = json.loads((folder / "scores" / "results.json").read_text())
    assert (scores["images"], len(scores["per_class"])) == (PAIRS["val"], 11)
    model = json.loads((folder / "graph" / "frozen_inference_graph.pb.model.json").read_text())
    assert (model["dataset"], model["ignore_label"], model["classes"][9]["name"]) == ("camvid", 11, "pedestrian")
    assert len(list((folder / "masks" / "ids").iterdir())) == PAIRS["test"]


def test_the_whole_flow(folder: Path, flow_environment: dict[str, str]) -> None:
    *_, flow = _blocks("sh")
    first = _run(flow, folder, flow_environment)
    assert re.search(r"mean IoU +[\d.]+ % on 2 images", first)
    with zipfile.ZipFile((folder / "camvid.zip").rename(folder / "moved.zip")) as archive:
        archive.extractall(folder / "here")
    (folder / "camvid.yaml").write_text((folder / "camvid.yaml").read_text().replace("camvid.zip", "here/camvid"))
    assert re.search(r"mean IoU +[\d.]+ % on 2 images", _run(flow, folder, flow_environment)), "a folder will do, too"
