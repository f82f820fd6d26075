"""``--seal_checkpoints``: every checkpoint as a file of its own, and a training that goes on from the newest."""

import json
import re
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import Result
from tests.integration.test_training_command import SMALL

Deeplab = Callable[..., Result]
TRAIN = ["train", *SMALL, "--train_crop_size=33,33", "--training_number_of_steps=6", "--save_interval_steps=1"]


@pytest.fixture
def records(deeplab: Deeplab) -> None:
    assert deeplab("sample", "--output_path=sample.zip", "--size=8").returncode == 0
    assert deeplab("convert", "--dataset=sample", "--source=sample.zip", "--output_dir=records").returncode == 0


def _points(folder: Path) -> list[tuple[int, float]]:
    """Step and loss of every metric point."""
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(point["step"], point["loss"]) for point in points]


@pytest.mark.usefixtures("records")
def test_a_sealed_checkpoint_is_the_training_at_its_step(deeplab: Deeplab, tmp_path: Path) -> None:
    done = deeplab(*TRAIN, "--seal_checkpoints=out/sealed")
    assert done.returncode == 0, done.stderr
    sealed, run = tmp_path / "out" / "sealed", tmp_path / "run"
    # Older checkpoints are pruned in the training's folder, never here.
    assert {path.name for path in sealed.iterdir()} == {f"checkpoint-{step}.tar" for step in range(1, 7)}
    assert len(list(run.glob("*.index"))) == 5
    assert {path.stat().st_mode & 0o777 for path in sealed.iterdir()} == {0o444}
    with tarfile.open(sealed / "checkpoint-4.tar") as archive:
        data = "model.ckpt-4.data-00000-of-00001"
        assert archive.getnames() == ["checkpoint", "metrics.jsonl", data, "model.ckpt-4.index", "model.json"]
        assert archive.extractfile(data).read() == (run / data).read_bytes()  # type: ignore[union-attr]
        state = archive.extractfile("checkpoint").read().decode()  # type: ignore[union-attr]
        assert re.findall('"(.*)"', state) == ["model.ckpt-4"] * 2

    # Another machine: what was sealed before the first one was lost, unpacked by tar into an empty folder.
    (tmp_path / "other").mkdir()
    subprocess.run(["tar", "-xf", str(sealed / "checkpoint-4.tar"), "-C", str(tmp_path / "other")], check=True)
    again = deeplab(*TRAIN, "--train_logdir=other")
    assert again.returncode == 0, again.stderr
    assert "resuming from model.ckpt-4 at step 4" in again.stderr
    assert _points(tmp_path / "other") == _points(run)
    assert [step for step, _ in _points(run)] == list(range(1, 7))
    # The digest covers every value of the last checkpoint, the optimizer's among them.
    assert _manifest(tmp_path / "other")["digest"] == _manifest(run)["digest"]
    # The flag changes nothing about what the training is.
    assert _manifest(tmp_path / "other")["parameters"] == _manifest(run)["parameters"]


@pytest.mark.usefixtures("records")
def test_what_is_sealed_stays(deeplab: Deeplab, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    sealed.mkdir()
    (sealed / "checkpoint-6.tar").write_text("of an earlier attempt")
    done = deeplab(*TRAIN, "--seal_checkpoints=sealed")
    assert done.returncode == 0, done.stderr
    assert (sealed / "checkpoint-6.tar").read_text() == "of an earlier attempt"
    (tmp_path / "file").touch()
    refused = deeplab(*TRAIN, "--train_logdir=other", "--seal_checkpoints=file")
    assert refused.returncode == 1
    assert "--seal_checkpoints=file: cannot be made (File exists); choose another folder" in refused.stderr


def _manifest(folder: Path) -> dict[str, object]:
    return json.loads((folder / "manifest.json").read_text())  # type: ignore[no-any-return]
