from pathlib import Path

import pytest
import tensorflow as tf
from google.protobuf import text_format

from deeplab.cli import main
from deeplab.config import ModelConfig, ModelDescription, validate
from deeplab.config.description import FILE_NAME
from deeplab.data.datasets import get_dataset
from deeplab.model.checkpoint import write_checkpoint
from deeplab.model.network import Network
from deeplab.model.variables import VariableStore

SMALL = {"depth_multiplier": 0.1, "aspp_convs_filters": 8}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network for the sample data set, described."""
    store, config = VariableStore(), validate(ModelConfig, SMALL)
    network = Network(config, 9, (33, 33), store)
    tf.function(network.logits, autograph=False).get_concrete_function(tf.TensorSpec([1, 33, 33, 3]))
    folder = tmp_path_factory.mktemp("run")
    write_checkpoint(folder / "model.ckpt-1", {name: variable.numpy() for name, variable in store.variables.items()})
    description = ModelDescription.of(config, (33, 33), 9, **get_dataset("sample").description())
    description.write(folder / FILE_NAME)
    return folder


def test_the_text_form_is_written_after_a_finished_export_too(checkpoint: Path, tmp_path: Path) -> None:
    command = ["export", f"--checkpoint_path={checkpoint}", f"--export_path={tmp_path / 'graph.pb'}"]
    text = tmp_path / "inference_graph.pbtxt"
    assert main(command) == 0
    assert not text.exists()
    before = (tmp_path / "graph.pb").stat().st_mtime_ns
    assert main([*command, "--save_inference_graph"]) == 0
    assert (tmp_path / "graph.pb").stat().st_mtime_ns == before
    graph = tf.compat.v1.GraphDef.FromString((tmp_path / "graph.pb").read_bytes())
    assert text_format.Parse(text.read_text(), tf.compat.v1.GraphDef()) == graph


def test_a_data_set_with_other_classes_is_refused(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["export", f"--checkpoint_path={checkpoint}", f"--export_path={tmp_path / 'graph.pb'}"]
    assert main([*command, "--dataset=ade20k"]) == 2
    assert "--dataset=ade20k has 151 classes, the model 9; name the data set" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_another_file_of_that_name_is_left_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "graph.pb").write_text("mine")
    assert main(["export", f"--checkpoint_path={checkpoint}", f"--export_path={tmp_path / 'graph.pb'}"]) == 1
    assert "not made by this stage" in capsys.readouterr().err
    assert (tmp_path / "graph.pb").read_text() == "mine"
    assert not (tmp_path / "graph.pb.model.json").exists()


def test_rates_of_another_stride_are_said(checkpoint: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for file in checkpoint.glob("model.ckpt*"):
        (bare / file.name).write_bytes(file.read_bytes())
    flags = [f"--{name}={value}" for name, value in SMALL.items()]
    command = ["export", f"--checkpoint_path={bare}", f"--export_path={tmp_path / 'graph.pb'}", "--num_classes=9"]
    rates = ["--atrous_rates=6", "--atrous_rates=12", "--atrous_rates=18", "--output_stride=8"]
    # The checkpoint has no such branches: it is refused, but only after the advice.
    assert main([*command, *flags, *rates]) == 1
    assert "usual here: --atrous_rates=12,24,36" in caplog.text
