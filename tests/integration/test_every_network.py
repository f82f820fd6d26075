"""Every backbone through the stages' own command line: a step of training, evaluation, export, prediction."""

import json
from pathlib import Path

import pytest
from PIL import Image

from deeplab.backbones import BACKBONES
from deeplab.cli import main

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    assert main(["sample", f"--output_path={folder / 'sample.zip'}", "--size=4"]) == 0
    convert = ["convert", "--dataset=sample", f"--source={folder / 'sample.zip'}", f"--output_dir={folder / 'records'}"]
    assert main([*convert, "--num_shards=1"]) == 0
    return folder / "records"


@pytest.mark.parametrize("variant", sorted(BACKBONES))
def test_train_evaluate_export_predict(variant: str, data: Path, tmp_path: Path) -> None:
    # The searched network without its head ends at stride 8.
    stride = 8 if variant == "nas_hnasnet" else 16
    decoder = ["--decoder_output_stride=4"] if BACKBONES[variant].decoder_end_points else []
    train = [
        f"--model_variant={variant}",
        f"--output_stride={stride}",
        *decoder,
        "--dataset=sample",
        f"--dataset_dir={data}",
        f"--train_logdir={tmp_path / 'run'}",
        "--train_crop_size=65,65",
        "--train_batch_size=2",
        "--training_number_of_steps=1",
        "--min_resize_value=65",
        "--max_resize_value=65",
    ]
    assert main(["train", *train]) == 0
    run, evaluation = tmp_path / "run", tmp_path / "eval"
    assert main(["evaluate", f"--checkpoint_dir={run}", f"--dataset_dir={data}", f"--eval_logdir={evaluation}"]) == 0
    results = json.loads((evaluation / "results.json").read_text())
    assert results["images"] == 1
    assert results["settings"]["model_variant"] == variant
    graph = tmp_path / "graph.pb"
    assert main(["export", f"--checkpoint_path={run}", f"--export_path={graph}"]) == 0
    masks = tmp_path / "masks"
    assert main(["predict", f"--model={graph}", f"--images={data}", f"--output_dir={masks}"]) == 0
    (ids,), (overlay,) = (masks / "ids").iterdir(), (masks / "overlays").iterdir()
    with Image.open(ids) as mask, Image.open(overlay) as picture:
        assert mask.size == picture.size
