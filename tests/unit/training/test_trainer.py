import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from deeplab.config import TrainingConfig, validate
from deeplab.data.datasets import get_dataset
from deeplab.data.packing import pack
from deeplab.errors import CheckpointError, OutputError, TrainingError
from deeplab.model.checkpoint import content_digest, locate, open_checkpoint, write_checkpoint, write_state
from deeplab.training.initialization import initialize
from deeplab.training.metrics_log import MetricsLog
from deeplab.training.optimizers import gradient_multipliers
from deeplab.training.trainer import Trainer

SIZE = 33


def _config(**values: Any) -> TrainingConfig:
    given = {
        "dataset_dir": "-",
        "train_logdir": "-",
        "depth_multiplier": 0.1,
        "aspp_convs_filters": 8,
        "train_crop_size": f"{SIZE},{SIZE}",
        "train_batch_size": 2,
    }
    return validate(TrainingConfig, {**given, **values})


def _trainer(dataset: str = "sample", **values: Any) -> Trainer:
    return Trainer(_config(**values), get_dataset(dataset))


@pytest.fixture(scope="module")
def batch() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    images = generator.uniform(0, 255, (2, SIZE, SIZE, 3)).astype(np.float32)
    return images, generator.integers(0, 5, (2, SIZE, SIZE, 1)).astype(np.int32)


@pytest.mark.parametrize("optimizer", ["momentum", "adam"])
def test_training_lowers_the_loss_and_resumes_exactly(batch: tuple[np.ndarray, np.ndarray], optimizer: str) -> None:
    rate = 0.01 if optimizer == "momentum" else 0.001
    trainer = _trainer(optimizer=optimizer)
    losses = [trainer.train_step(*batch, rate) for _ in range(3)]
    middle = trainer.values()
    losses += [trainer.train_step(*batch, rate) for _ in range(3)]
    assert losses[-1] < losses[0]
    resumed = _trainer(optimizer=optimizer)
    resumed.load(middle)
    assert resumed.step == 3
    again = [resumed.train_step(*batch, rate) for _ in range(3)]
    assert again == pytest.approx(losses[3:], rel=1e-6)


def test_initial_values_depend_on_the_seed_and_the_name_alone() -> None:
    first, deeper, other = _trainer(), _trainer(decoder_output_stride="4"), _trainer(seed=1)
    name = "MobilenetV2/expanded_conv_3/expand/weights"
    assert np.array_equal(first.values()[name], deeper.values()[name])
    assert not np.array_equal(first.values()[name], other.values()[name])


def test_slots_carry_the_names_of_tensorflow_1() -> None:
    names = set(_trainer().values())
    assert {"MobilenetV2/Conv/weights/Momentum", "global_step"} <= names
    assert "MobilenetV2/Conv/BatchNorm/moving_mean/Momentum" not in names
    adam = set(_trainer(optimizer="adam").values())
    assert {"logits/semantic/biases/Adam", "logits/semantic/biases/Adam_1", "beta1_power", "beta2_power"} <= adam


def test_a_loss_that_is_no_number_stops_training(batch: tuple[np.ndarray, np.ndarray]) -> None:
    trainer = _trainer()
    biases = trainer.store.variables["logits/semantic/biases"]
    biases.assign(tf.fill(biases.shape, np.nan))
    with pytest.raises(TrainingError, match="loss is nan at step 1; lower --base_learning_rate"):
        trainer.train_step(*batch, 0.1)


def test_reestimated_statistics_are_those_of_the_batches(batch: tuple[np.ndarray, np.ndarray]) -> None:
    trainer = _trainer()
    images = [batch[0], batch[0] * 0.5]
    trainer.reestimate_batch_norm(tf.constant(image) for image in images)
    values = trainer.values()
    kernel = tf.constant(values["MobilenetV2/Conv/weights"])
    means = [
        tf.reduce_mean(tf.nn.conv2d(2 / 255 * image - 1, kernel, 2, "SAME"), [0, 1, 2]).numpy() for image in images
    ]
    assert values["MobilenetV2/Conv/BatchNorm/moving_mean"] == pytest.approx(np.mean(means, axis=0), abs=1e-5)
    assert values["MobilenetV2/Conv/weights"] == pytest.approx(kernel.numpy())


def test_gradient_multipliers() -> None:
    names = ["MobilenetV2/Conv/weights", "logits/semantic/weights", "logits/semantic/biases", "decoder/x/weights"]
    factors = gradient_multipliers(_config(last_layer_gradient_multiplier=10), names)
    assert factors == {names[1]: 10, names[2]: 20, names[3]: 10}
    narrow = _config(last_layer_gradient_multiplier=10, last_layers_contain_logits_only=True)
    assert gradient_multipliers(narrow, names) == {names[1]: 10, names[2]: 20}


def test_a_checkpoint_is_what_tensorflow_1_reads(tmp_path: Path) -> None:
    values = _trainer().values()
    write_checkpoint(tmp_path / "model.ckpt-7", values)
    write_state(tmp_path, [tmp_path / "model.ckpt-7"])
    assert tf.train.latest_checkpoint(str(tmp_path)) == str(tmp_path / "model.ckpt-7")
    reader = tf.compat.v1.train.NewCheckpointReader(str(tmp_path / "model.ckpt-7"))
    assert set(reader.get_variable_to_shape_map()) == set(values)
    checkpoint = locate(tmp_path)
    assert checkpoint.step == 7
    assert checkpoint.digest() == content_digest(values, None)


def test_a_checkpoint_that_does_not_fit_is_said_and_the_one_before_stays(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "model.ckpt-7", {"a": np.zeros(1, np.float32)})
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (1000, limits[1])
    )  # bytes of a file; as a full disk does, it ends a write
    try:
        with pytest.raises(OutputError, match=r"model\.ckpt-8: cannot be written \(File too large\); make room"):
            write_checkpoint(tmp_path / "model.ckpt-8", {"a": np.zeros(1000, np.float32)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert locate(tmp_path).step == 7


def test_an_archive_or_a_folder_with_only_one_is_a_checkpoint(tmp_path: Path) -> None:
    values = {"a": np.arange(3, dtype=np.float32)}
    write_checkpoint(tmp_path / "run" / "model.ckpt-7", values)
    (tmp_path / "inputs").mkdir()
    pack(sorted((tmp_path / "run").iterdir()), tmp_path / "inputs" / "checkpoints.tar.gz")
    for place in (tmp_path / "inputs" / "checkpoints.tar.gz", tmp_path / "inputs"):
        with open_checkpoint(place) as checkpoint:
            assert checkpoint.step == 7
            assert checkpoint.digest() == content_digest(values, None)
            unpacked = checkpoint.prefix.parent
        assert not unpacked.exists()


def test_where_a_checkpoint_is_not(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "run" / "model.ckpt-7", {"a": np.zeros(1, np.float32)})
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint in this folder; nearby: .*run/model\.ckpt-7"):
        locate(tmp_path / "empty")
    with pytest.raises(CheckpointError, match=r"no such checkpoint; nearby: .*run/model\.ckpt-7"):
        locate(tmp_path / "run" / "model.ckpt-8")
    for data in (tmp_path / "run").glob("*.data-*"):
        data.unlink()
    with pytest.raises(CheckpointError, match=r"copy model\.ckpt-7\.data-\* there too"):
        locate(tmp_path / "run")


class TestInitialization:
    def test_three_lists(self) -> None:
        plain = _trainer()
        refined = _trainer(decoder_output_stride="4", decoder_filters=8)
        decoder = {name for name in refined.store.variables if name.startswith("decoder/")}
        report = initialize(refined, plain.values(), refined.config, "there")
        assert "MobilenetV2/Conv/weights" in report.loaded
        assert (set(report.fresh), report.unused) == (decoder, ())
        report = initialize(plain, {**refined.values(), "global_step": np.int64(9)}, plain.config, "there")
        assert (report.fresh, {name for name in report.unused if "Momentum" not in name}) == ((), decoder)
        assert plain.step == 0

    def test_other_classes(self) -> None:
        source = _trainer("pascal_voc_seg").values()
        trainer = _trainer()
        with pytest.raises(CheckpointError, match=r"21 classes, this data set has \d+ .*--initialize_last_layer=false"):
            initialize(trainer, source, trainer.config, "there")
        narrow = _trainer(initialize_last_layer=False, last_layers_contain_logits_only=True)
        report = initialize(narrow, source, narrow.config, "there")
        assert [name for name in report.fresh if "Momentum" not in name] == [
            "logits/semantic/weights",
            "logits/semantic/biases",
        ]

    def test_another_backbone(self) -> None:
        trainer = _trainer()
        with pytest.raises(CheckpointError, match=r"another backbone: only 0% of the 255 variables"):
            initialize(trainer, {"xception_65/conv/weights": np.zeros(3)}, trainer.config, "there")


def test_a_resumed_metrics_log_drops_what_lies_beyond(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 10, "loss": 1}\n{"step": 20, "loss": 2}\n{"step": 3')
    log = MetricsLog(path, 10)
    log.write(step=20, loss=3.0)
    log.close()
    assert path.read_text() == '{"step": 10, "loss": 1}\n{"step": 20, "loss": 3.0}\n'
