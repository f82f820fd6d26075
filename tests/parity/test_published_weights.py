"""Published weights through the command line: the same pixels, the same scores."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.config import TrainingConfig, validate
from deeplab.data.datasets import get_dataset
from deeplab.data.tfrecord import parse_example, read_records
from deeplab.training.trainer import Trainer

pytestmark = pytest.mark.parity


def _deeplab(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "deeplab", *arguments], check=True, stdout=subprocess.DEVNULL)


def _photos(real_data: Path) -> list[np.ndarray]:
    """The 33 real photos, those above 513 pixels scaled to a longest side of 513."""
    photos = []
    for record in read_records(real_data / "ade20k_mini_tfrecords" / "val-00000-of-00001.tfrecord"):
        image = tf.io.decode_jpeg(parse_example(record)["image/encoded"], channels=3).numpy()
        scale = 513 / max(image.shape[:2])
        if scale < 1:
            height, width = (max(1, round(side * scale)) for side in image.shape[:2])
            image = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))
        photos.append(image)
    return photos


def _run(path: Path, fetches: list[str]) -> Any:
    graph = tf.compat.v1.GraphDef()
    graph.ParseFromString(path.read_bytes())
    function = tf.compat.v1.wrap_function(lambda: tf.graph_util.import_graph_def(graph, name=""), [])
    feed = function.graph.get_tensor_by_name("ImageTensor:0")
    return function.prune(feed, [function.graph.get_tensor_by_name(name) for name in fetches])


@pytest.mark.timeout(900)
def test_export_predicts_every_pixel_of_the_published_graph(checkpoints: Path, real_data: Path, tmp_path: Path) -> None:
    folder, ours = checkpoints / "deeplabv3_mnv2_dm05_pascal", tmp_path / "graph.pb"
    _deeplab(
        "export",
        f"--checkpoint_path={folder}",
        f"--export_path={ours}",
        "--model_variant=mobilenet_v2",
        "--depth_multiplier=0.5",
        "--output_stride=8",
        "--crop_size=513",
        "--crop_size=513",
        "--num_classes=21",
    )
    exported = _run(ours, ["SemanticPredictions:0", "SemanticProbabilities:0"])
    published = _run(folder / "frozen_inference_graph_513.pb", ["SemanticPredictions:0"])
    photos = _photos(real_data)
    assert len(photos) == 33
    differing = 0
    for photo in photos:
        batch = tf.constant(photo[np.newaxis])
        labels, probabilities = exported(batch)
        differs = labels.numpy() != published(batch)[0].numpy()
        if differs.any():
            best = np.sort(np.log(probabilities.numpy()[differs]), axis=-1)
            assert (best[:, -1] - best[:, -2] < 1e-4).all()
        differing += int(differs.sum())
    print(f"{differing} pixels differ, each a tie of the two best logits")


@pytest.mark.timeout(900)
def test_evaluation_of_the_published_ade20k_model(checkpoints: Path, real_data: Path, tmp_path: Path) -> None:
    _deeplab(
        "evaluate",
        "--dataset=ade20k",
        "--eval_split=val",
        "--eval_crop_size=513,513",
        "--min_resize_value=513",
        "--max_resize_value=513",
        "--resize_factor=8",
        "--output_stride=8",
        "--decoder_output_stride=4",
        f"--checkpoint_dir={checkpoints / 'deeplabv3_mnv2_ade20k_from_tflite'}",
        f"--dataset_dir={real_data / 'ade20k_mini_tfrecords'}",
        f"--eval_logdir={tmp_path / 'eval'}",
    )
    results = json.loads((tmp_path / "eval" / "results.json").read_text())
    assert results["images"] == 33
    assert results["miou"] == pytest.approx(0.2020, abs=5e-4)
    assert results["pixel_accuracy"] == pytest.approx(0.7303, abs=5e-4)
    assert results["mean_accuracy"] == pytest.approx(0.3770, abs=5e-4)
    assert sum(entry["iou"] is not None for entry in results["per_class"]) == 121


def test_the_published_index_entry_by_entry(checkpoints: Path) -> None:
    """Names, shapes and types of what training on ADE20K with this network saves, optimiser slots included."""
    prefix = checkpoints / "deeplabv3_mnv2_ade20k_google_index" / "model.ckpt"
    reader = tf.train.load_checkpoint(str(prefix))
    types = reader.get_variable_to_dtype_map()
    published = {name: (shape, types[name].name) for name, shape in reader.get_variable_to_shape_map().items()}
    given = {"dataset_dir": "-", "train_logdir": "-", "decoder_output_stride": "4", "train_crop_size": "65,65"}
    values = Trainer(validate(TrainingConfig, given), get_dataset("ade20k")).values()
    ours = {name: (list(value.shape), value.dtype.name) for name, value in values.items()}
    assert len(published) == 477
    assert ours == published
