import json
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from deeplab.cli import main
from deeplab.config import ExportConfig, ModelConfig, ModelDescription, validate
from deeplab.data.datasets import get_dataset
from deeplab.export.frozen_graph import build_frozen_graph
from deeplab.model.network import Network
from deeplab.model.variables import VariableStore

SMALL = {"depth_multiplier": 0.1, "aspp_convs_filters": 8}


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported network for the sample data set, crop 65, alone in its folder."""
    store = VariableStore()
    network = Network(validate(ModelConfig, SMALL), 9, (65, 65), store)
    tf.function(network.logits, autograph=False).get_concrete_function(tf.TensorSpec([1, 65, 65, 3]))
    values = {name: variable.numpy() for name, variable in store.variables.items()}
    given = {**SMALL, "num_classes": 9, "crop_size": "65,65", "output_stride": 16}
    config = validate(ExportConfig, {**given, "checkpoint_path": "-", "export_path": "-"})
    path = tmp_path_factory.mktemp("graph") / "frozen_graph"
    path.write_bytes(build_frozen_graph(config, values).SerializeToString())
    description = ModelDescription.of(config, (65, 65), 9, **get_dataset("sample").description())
    description.write(path.with_name("frozen_graph.model.json"))
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    generator = np.random.default_rng(0)
    for name, size in (("small.jpg", (40, 30)), ("large.png", (200, 120)), ("gray.jpg", None)):
        pixels = generator.integers(0, 256, (50, 60) if size is None else (*size[::-1], 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)
    return folder


def test_masks_have_the_photos_sizes_and_the_models_colours(graph: Path, photos: Path, tmp_path: Path) -> None:
    # The folder of the graph stands for it.
    assert main(["predict", f"--model={graph.parent}", f"--images={photos}", f"--output_dir={tmp_path / 'out'}"]) == 0
    colours = get_dataset("sample").colours
    for name, size in (("small", (40, 30)), ("large", (200, 120)), ("gray", (60, 50))):
        with (
            Image.open(tmp_path / "out" / "ids" / f"{name}.png") as ids,
            Image.open(tmp_path / "out" / "colours" / f"{name}.png") as painted,
            Image.open(tmp_path / "out" / "overlays" / f"{name}.jpg") as overlay,
        ):
            assert ids.size == painted.size == overlay.size == size
            labels, picture = np.asarray(ids), np.asarray(painted)
        assert labels.max() < 9
        assert np.array_equal(picture, np.asarray(colours, np.uint8)[labels])
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert len(manifest["outputs"]) == 9


def test_a_file_that_is_no_model(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "graph.pb").write_bytes(b"\xff" * 50)
    arguments = [f"--model={tmp_path / 'graph.pb'}", f"--images={photos}", f"--output_dir={tmp_path / 'out'}"]
    assert main(["predict", *arguments]) == 1
    assert "not a frozen graph" in capsys.readouterr().err


def test_no_photo(graph: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"--model={graph}", f"--images={tmp_path / '*.jpg'}", f"--output_dir={tmp_path / 'out'}"]
    assert main(["predict", *arguments]) == 1
    assert "no photo there" in capsys.readouterr().err


@pytest.mark.parametrize(
    "flag",
    ["--inference_scales=0.5", "--add_flipped_images", "--output_stride=8", "--crop_size=129,129",
     "--min_resize_value=33", "--prediction_with_upsampled_logits=false"],
)  # fmt: skip
def test_a_graph_computes_what_it_was_exported_for(
    graph: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], flag: str
) -> None:
    arguments = [f"--model={graph}", f"--images={photos}", f"--output_dir={tmp_path / 'out'}", flag]
    assert main(["predict", *arguments]) == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert flag.partition("=")[0] in message and "cannot change a frozen graph" in message
    assert not (tmp_path / "out").exists()


def test_repeating_what_a_graph_was_exported_for_is_no_change(graph: Path, photos: Path, tmp_path: Path) -> None:
    again = ["--crop_size=65,65", "--output_stride=16", "--num_classes=9", "--inference_scales=1.0", "--dataset=sample"]
    again += ["--add_flipped_images=false", "--resize_factor="]
    arguments = [f"--model={graph}", f"--images={photos}", f"--output_dir={tmp_path / 'out'}"]
    assert main(["predict", *arguments, *again]) == 0


def test_a_graph_without_description_can_be_told_its_size(
    graph: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bare = tmp_path / "bare.pb"
    bare.write_bytes(graph.read_bytes())
    arguments = [f"--model={bare}", f"--images={photos}", f"--output_dir={tmp_path / 'out'}"]
    assert main(["predict", *arguments, "--crop_size=65,65"]) == 0
    assert main(["predict", *arguments, "--model_variant=xception_65"]) == 2
    assert "--model_variant=xception_65 cannot change a frozen graph" in capsys.readouterr().err
