"""Bad input ends a stage with one clear line and leaves nothing under a final name."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.integration.conftest import Result

Deeplab = Callable[..., Result]
ROOT = "ADEChallengeData2016"


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def _members() -> dict[str, bytes]:
    """Two training pairs and one for validation, ADE20K's layout."""
    generator = np.random.default_rng(0)
    members = {}
    for split, names in (("training", ("ADE_train_1", "ADE_train_2")), ("validation", ("ADE_val_1",))):
        for name in names:
            photo = generator.integers(0, 256, (40, 50, 3), np.uint8)
            mask = generator.integers(0, 151, (40, 50), np.uint8)
            members[f"{ROOT}/images/{split}/{name}.jpg"] = _encoded(photo, "JPEG")
            members[f"{ROOT}/annotations/{split}/{name}.png"] = _encoded(mask, "PNG")
    return members


PHOTO, MASK = f"{ROOT}/images/training/ADE_train_1.jpg", f"{ROOT}/annotations/training/ADE_train_1.png"


def _cut_photo(members: dict[str, bytes]) -> None:
    members[PHOTO] = members[PHOTO][: len(members[PHOTO]) // 2]


def _small_mask(members: dict[str, bytes]) -> None:
    members[MASK] = _encoded(np.zeros((40, 49), np.uint8), "PNG")


def _bad_value(members: dict[str, bytes]) -> None:
    members[MASK] = _encoded(np.full((40, 50), 151, np.uint8), "PNG")


def _no_mask(members: dict[str, bytes]) -> None:
    del members[MASK]


def _write(members: dict[str, bytes], path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def _final_files(folder: Path) -> list[str]:
    if not folder.exists():
        return []
    return [str(path) for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".")]


def _one_line(result: Result) -> str:
    """The message: the only line on stderr that is neither progress nor a log line."""
    assert result.returncode not in (0, 143), result.stdout
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("deeplab ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_cut_photo, ["ADE_train_1.jpg", "cut short"]),
        (_small_mask, ["ADE_train_1", "40", "49", "50"]),
        (_bad_value, ["ADE_train_1.png", "151", "0..150"]),
        (_no_mask, ["ADE_train_1.jpg", "without"]),
    ],
)
def test_a_bad_member(deeplab: Deeplab, tmp_path: Path, damage: Callable[..., None], words: list[str]) -> None:
    members = _members()
    damage(members)
    _write(members, tmp_path / "ade.zip")
    message = _one_line(deeplab("convert", "--dataset=ade20k", "--source=ade.zip", "--output_dir=out"))
    assert all(word in message for word in words), message
    assert _final_files(tmp_path / "out") == []
    # The same command on mended data goes through in the same folder.
    _write(_members(), tmp_path / "ade.zip")
    assert deeplab("convert", "--dataset=ade20k", "--source=ade.zip", "--output_dir=out").returncode == 0


def test_a_zip_that_is_cut_short(deeplab: Deeplab, tmp_path: Path) -> None:
    _write(_members(), tmp_path / "ade.zip")
    whole = (tmp_path / "ade.zip").read_bytes()
    (tmp_path / "ade.zip").write_bytes(whole[: len(whole) * 2 // 3])
    assert "ade.zip" in _one_line(deeplab("convert", "--source=ade.zip", "--output_dir=out"))
    assert _final_files(tmp_path / "out") == []


def test_an_output_folder_that_cannot_be_written(deeplab: Deeplab, tmp_path: Path) -> None:
    _write(_members(), tmp_path / "ade.zip")
    (tmp_path / "file").write_text("in the way")
    message = _one_line(deeplab("convert", "--source=ade.zip", "--output_dir=file/out"))
    assert "file/out" in message and "cannot be written" in message


def test_a_misspelt_flag(deeplab: Deeplab) -> None:
    result = deeplab("train", "--decoder_otput_stride=4")
    assert "did you mean --decoder_output_stride?" in _one_line(result)


def test_a_decoder_stride_that_the_network_lacks(deeplab: Deeplab, tmp_path: Path) -> None:
    _write(_members(), tmp_path / "ade.zip")
    assert deeplab("convert", "--source=ade.zip", "--output_dir=data").returncode == 0
    message = _one_line(
        deeplab(
            "train", "--dataset_dir=data", "--train_logdir=log", "--decoder_output_stride=2", "--train_crop_size=33,33"
        )
    )
    assert "--decoder_output_stride=2" in message and "it has 4, 8, 16" in message
    assert _final_files(tmp_path / "log") == []


def test_a_checkpoint_folder_without_a_checkpoint(deeplab: Deeplab, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "runs").mkdir()
    for name in ("model.ckpt-100.index", "model.ckpt-100.data-00000-of-00001"):
        (tmp_path / "runs" / name).touch()
    message = _one_line(deeplab("export", "--checkpoint_path=empty", "--export_path=graph.pb"))
    assert "empty: no checkpoint" in message and "runs/model.ckpt-100" in message
    assert not (tmp_path / "graph.pb").exists()


def test_a_photo_larger_than_the_evaluation_crop(deeplab: Deeplab, tmp_path: Path) -> None:
    _write(_members(), tmp_path / "ade.zip")
    data = ["--dataset=ade20k", "--dataset_dir=data"]
    assert deeplab("convert", "--source=ade.zip", "--output_dir=data").returncode == 0
    small = ["--depth_multiplier=0.1", "--train_crop_size=33,33", "--train_batch_size=1", "--aspp_convs_filters=8"]
    trained = deeplab("train", *data, "--train_logdir=log", *small, "--training_number_of_steps=1")
    assert trained.returncode == 0, trained.stderr
    message = _one_line(deeplab("evaluate", *data, "--checkpoint_dir=log", "--eval_logdir=eval"))
    assert "40x50" in message and "--eval_crop_size=33,33" in message
    assert _final_files(tmp_path / "eval") == []
