"""One model a stage: its flags, in the original's spelling, with the original's defaults."""

from typing import Literal

from pydantic import model_validator

from deeplab.config.base import Flags, flag
from deeplab.config.dataset_name import is_dataset_file
from deeplab.config.model import ModelConfig, OutputStride, PreprocessingConfig, SeedConfig
from deeplab.config.network_rules import check_classes, check_pooling


class SampleConfig(SeedConfig):
    """Draw a small data set of made-up scenes as a zip in the layout of ADEChallengeData2016."""

    output_path: str = flag(..., "The zip file to write.", key=False)
    size: int = flag(160, "Training pairs to draw; a quarter as many again for validation.", ge=4, le=100_000)


class FetchConfig(SeedConfig):
    """Bring a file here."""

    source: str = flag(..., "URL (azure://ACCOUNT/CONTAINER/BLOB, az://, https:// …) or path of the file.", key=False)
    sha256: str | None = flag(
        None, "Expected SHA-256 of the content, 64 hexadecimal digits.", pattern="^[0-9a-fA-F]{64}$"
    )
    azure_endpoint: str | None = flag(
        None,
        "URL of the blob service to use for every Azure address, such as http://127.0.0.1:10000/devstoreaccount1.",
        key=False,
    )
    output_dir: str = flag(..., "Folder that receives the file under its own name.", key=False)


class ConvertConfig(SeedConfig):
    """Convert images and masks to TFRecord shards with the original's features."""

    dataset: str = flag("ade20k", "Data set: a registered name, or the path of a dataset.yaml.")
    source: str | None = flag(None, "Zip or tar archive, or folder, in the data set's layout.", key=False)
    train_image_folder: str = flag(
        "./ADE20K/ADEChallengeData2016/images/training",
        "Training photos, when there is no --source.",
        key=False,
    )
    train_image_label_folder: str = flag(
        "./ADE20K/ADEChallengeData2016/annotations/training",
        "Training masks, when there is no --source.",
        key=False,
    )
    val_image_folder: str = flag(
        "./ADE20K/ADEChallengeData2016/images/validation",
        "Validation photos, when there is no --source.",
        key=False,
    )
    val_image_label_folder: str = flag(
        "./ADE20K/ADEChallengeData2016/annotations/validation",
        "Validation masks, when there is no --source.",
        key=False,
    )
    output_dir: str = flag("./ADE20K/tfrecord", "Folder for the shards and tfrecords.tar.gz.", key=False)
    image_format: Literal["png", "jpg", "jpeg"] = flag(
        "png", "Accepted for the original's sake; the format written is read from each file.", key=False
    )
    label_format: Literal["png"] = flag("png", "Format of the masks.", key=False)
    num_shards: int = flag(4, "Shards per split.", ge=1, le=99_999)
    splits: tuple[str, ...] | None = flag(None, "Splits to convert; empty: all usual ones that are there.")
    validation: Literal["headers", "sample", "labels", "decode"] = flag(
        "labels",
        "Checks beyond headers, sizes and end marks: none, every 20th mask's values, all masks' values, or these and "
        "every photo by decoding it.",
        alias="validate",
    )
    on_error: Literal["fail", "skip"] = flag("fail", "A bad pair ends the conversion, or is left out and noted.")
    archive: bool = flag(True, "Also pack the shards as tfrecords.tar.gz, to be handed on.")
    num_threads: int = flag(2, "Shards converted at the same time.", key=False, ge=1, le=64)


class InspectConfig(SeedConfig):
    """Tell sizes, classes and oddities of a data set before anything is made of it."""

    dataset: str = flag("ade20k", "Data set: a registered name, or the path of a dataset.yaml.")
    source: str | None = flag(None, "Zip or tar archive, or folder; empty: what the dataset.yaml names.", key=False)
    splits: tuple[str, ...] | None = flag(None, "Splits to look at; empty: all usual ones that are there.")
    max_pairs: int | None = flag(None, "Look at so many pairs of a split, evenly chosen; empty: all.", ge=1)
    train_batch_size: int = flag(8, "Images per step, for the memory that a batch takes.", ge=1)
    sheet: str | None = flag(None, "PNG file to draw samples with a legend in.", key=False)
    sheet_images: int = flag(6, "Samples on the sheet.", key=False, ge=1, le=100)
    num_threads: int = flag(2, "Pairs looked at at the same time.", key=False, ge=1, le=64)


class TrainingConfig(ModelConfig, PreprocessingConfig, SeedConfig):
    """Train a network: the flags of the original's train.py."""

    dataset: str = flag("ade20k", "Data set whose records are read.")
    train_split: str = flag("train", "Split: shards named SPLIT-*.")
    dataset_dir: str = flag(..., "Folder of shards, or tfrecords.tar.gz.", key=False)
    train_logdir: str = flag(..., "Folder for checkpoints and metrics.", key=False)
    tf_initial_checkpoint: str | None = flag(
        None, "Checkpoint to start from (folder, prefix or archive) when train_logdir has none.", key=False
    )
    initialize_last_layer: bool = flag(True, "Restore the extra layers from the initial checkpoint too.")
    last_layers_contain_logits_only: bool = flag(False, "Narrow the extra layers to the classifier.")
    training_number_of_steps: int = flag(30000, "Steps to train in all.", ge=1)
    train_batch_size: int = flag(8, "Images per step over all clones.", ge=1)
    train_crop_size: tuple[int, int] = flag((513, 513), "height,width of training crops, pixels.")
    optimizer: Literal["momentum", "adam"] = flag("momentum", "Optimizer.")
    learning_policy: Literal["poly", "step"] = flag("poly", "Learning-rate schedule of momentum.")
    base_learning_rate: float = flag(0.0001, "Initial learning rate of the schedule.", gt=0)
    decay_steps: float = flag(0.0, "Length of the poly schedule; 0: all steps after the slow start.", ge=0)
    end_learning_rate: float = flag(0.0, "Rate at which the poly schedule ends.", ge=0)
    learning_rate_decay_factor: float = flag(0.1, "Factor of the step policy.", gt=0)
    learning_rate_decay_step: int = flag(2000, "Steps between two decays of the step policy.", ge=1)
    learning_power: float = flag(0.9, "Exponent of the poly policy.", ge=0)
    slow_start_step: int = flag(0, "Steps that run at slow_start_learning_rate.", ge=0)
    slow_start_learning_rate: float = flag(0.0001, "Learning rate of the slow start.", ge=0)
    momentum: float = flag(0.9, "Momentum coefficient.", ge=0, lt=1)
    adam_learning_rate: float = flag(0.001, "Constant learning rate of Adam.", gt=0)
    adam_epsilon: float = flag(1e-8, "Epsilon of Adam.", gt=0)
    weight_decay: float = flag(4e-5, "L2 coefficient; the loss is coefficient * sum(w^2) / 2.", ge=0)
    last_layer_gradient_multiplier: float = flag(1.0, "Gradient factor of the extra layers.", gt=0)
    upsample_logits: bool = flag(True, "Loss at label resolution; false: at the logits' resolution.")
    label_weights: tuple[float, ...] | None = flag(None, "Loss weight of each class.", repeated=True)
    hard_example_mining_step: int = flag(0, "Step at which hard pixel mining has fully ramped up.", ge=0)
    top_k_percent_pixels: float = flag(1.0, "Share of pixels (highest loss) in the loss; 1: all.", gt=0, le=1)
    fine_tune_batch_norm: bool = flag(True, "Batch norm uses and updates batch statistics.")
    batch_norm_reestimation_batches: int = flag(
        0,
        "Re-estimate batch norm's moving statistics over this many batches before the last checkpoint.",
        ge=0,
    )
    drop_path_keep_prob: float = flag(1.0, "NAS drop-path keep probability at the end of training.", gt=0, le=1)
    min_scale_factor: float = flag(0.5, "Smallest random rescaling of a training image.", gt=0)
    max_scale_factor: float = flag(2.0, "Largest random rescaling.", gt=0)
    scale_factor_step_size: float = flag(0.25, "Step between the possible scales; 0 draws uniformly.", ge=0)
    log_steps: int = flag(10, "Steps between two metric points.", key=False, ge=1)
    save_interval_secs: int = flag(1200, "Seconds between checkpoints.", key=False, ge=1)
    save_interval_steps: int | None = flag(None, "Steps between checkpoints, instead of seconds.", key=False, ge=1)
    seal_checkpoints: str | None = flag(
        None,
        "Folder that keeps every checkpoint of this training as one read-only checkpoint-STEP.tar to go on from.",
        key=False,
    )
    save_summaries_secs: int = flag(600, "Seconds between TensorBoard summaries.", key=False, ge=1)
    save_summaries_images: bool = flag(False, "Summaries show a photo, its labels and the prediction.", key=False)
    profile_logdir: str | None = flag(None, "Folder for a TensorFlow profile of steps 10 to 20.", key=False)
    num_clones: int = flag(1, "Replicas on this machine; the batch is split between them.", ge=1)
    clone_on_cpu: bool = flag(False, "Put the clones on the CPU.", key=False)
    num_replicas: int = flag(1, "Worker machines.", ge=1)
    startup_delay_steps: int = flag(15, "Accepted for the original's sake; workers start together.", key=False)
    num_ps_tasks: int = flag(0, "Parameter servers; only 0.", key=False, ge=0)
    master: str = flag("", "Accepted for the original's sake; there is no session to connect to.", key=False)
    task: int = flag(0, "Index of this worker.", key=False, ge=0)
    quantize_delay_step: int = flag(-1, "Step from which fake quantisation acts; negative: never.")

    @model_validator(mode="after")
    def _check(self) -> "TrainingConfig":
        if self.min_scale_factor > self.max_scale_factor:
            raise ValueError(
                f"min_scale_factor={self.min_scale_factor} exceeds max_scale_factor={self.max_scale_factor}; "
                "swap them or set both to 1 for no rescaling"
            )
        _only("num_clones", self.num_clones, 1, "train on one device, or start one run per device")
        _only("num_replicas", self.num_replicas, 1, "train on one machine")
        _only("num_ps_tasks", self.num_ps_tasks, 0, "leave it out; variables live with the worker")
        _no_quantisation(self.quantize_delay_step)
        check_pooling(self, "train_crop_size", self.train_crop_size)
        num_classes = _classes_of(self.dataset)
        if num_classes is not None:
            self.check_against_classes(num_classes)
        return self

    def check_against_classes(self, num_classes: int) -> None:
        """Refuse what does not fit a data set of so many classes.

        Raises:
            ValueError: naming both.
        """
        check_classes(self, num_classes)
        if self.label_weights is not None and len(self.label_weights) != num_classes:
            raise ValueError(
                f"--label_weights: {len(self.label_weights)} values for the {num_classes} classes of {self.dataset}; "
                "give one per class"
            )


class ArchiveConfig(SeedConfig):
    """Pack the last checkpoint of a training folder and its model.json."""

    train_logdir: str = flag(..., "Folder of a training run.", key=False)
    output_dir: str = flag(..., "Folder that receives checkpoints.tar.gz.", key=False)


class EvaluationConfig(ModelConfig, PreprocessingConfig, SeedConfig):
    """Measure a checkpoint: the flags of the original's eval.py."""

    dataset: str = flag("pascal_voc_seg", "Data set whose records are read.")
    dataset_dir: str = flag(..., "Folder of shards, or tfrecords.tar.gz.", key=False)
    eval_split: str = flag("val", "Split to evaluate.")
    checkpoint_dir: str = flag(..., "Checkpoint: folder, prefix or archive.", key=False)
    eval_logdir: str = flag(..., "Folder for results.json.", key=False)
    eval_batch_size: int = flag(1, "Images per batch.", key=False, ge=1)
    eval_crop_size: tuple[int, int] = flag((513, 513), "height,width every image is padded to, pixels.")
    eval_scales: tuple[float, ...] = flag((1.0,), "Test-time scales; several are averaged.", repeated=True)
    add_flipped_images: bool = flag(False, "Mirrored images join the average over several scales.")
    sheet_images: int = flag(6, "Rows of the sheet photo | truth | prediction; 0: no sheet.", key=False, ge=0, le=100)
    max_number_of_evaluations: int = flag(1, "Evaluations to run; this command evaluates once.", key=False)
    eval_interval_secs: int = flag(300, "Accepted for the original's sake; nothing is polled.", key=False)
    master: str = flag("", "Accepted for the original's sake; there is no session to connect to.", key=False)
    quantize_delay_step: int = flag(-1, "Evaluate with fake quantisation; negative: without.")

    @model_validator(mode="after")
    def _check(self) -> "EvaluationConfig":
        _no_quantisation(self.quantize_delay_step)
        _fits(self.largest_side, self.eval_crop_size)
        check_pooling(self, "eval_crop_size", self.eval_crop_size)
        num_classes = _classes_of(self.dataset)
        if num_classes is not None:
            check_classes(self, num_classes)
        return self


class ExportConfig(ModelConfig, PreprocessingConfig, SeedConfig):
    """Write a checkpoint as one frozen graph: the flags of the original's export_model.py."""

    checkpoint_path: str = flag(..., "Checkpoint: folder, prefix or archive.", key=False)
    export_path: str = flag(..., "The graph file to write.", key=False)
    num_classes: int = flag(21, "Classes of the model.", weights=True, ge=1)
    crop_size: tuple[int, int] = flag((513, 513), "Input size, height then width, pixels.", repeated=True)
    output_stride: OutputStride = flag(8, "Ratio of input to backbone-output resolution.")
    inference_scales: tuple[float, ...] = flag((1.0,), "Scales of the exported model.", repeated=True)
    add_flipped_images: bool = flag(False, "Mirrored images join the average over several scales.")
    save_inference_graph: bool = flag(False, "Also write the graph as text, inference_graph.pbtxt.", key=False)
    dataset: str | None = flag(None, "Data set whose class names and colours go into FILE.model.json.")
    quantize_delay_step: int = flag(-1, "Export with fake quantisation; negative: without.")

    @model_validator(mode="after")
    def _check(self) -> "ExportConfig":
        _no_quantisation(self.quantize_delay_step)
        _fits(self.largest_side, self.crop_size)
        check_pooling(self, "crop_size", self.crop_size)
        check_classes(self, self.num_classes)
        return self


class PredictConfig(ModelConfig, PreprocessingConfig, SeedConfig):
    """Segment photos with a frozen graph or a checkpoint."""

    model: str = flag(..., "Frozen graph (.pb), or a checkpoint: folder, prefix or archive.", key=False)
    images: str = flag(..., "Photo, folder, glob, or a data folder of shards.", key=False)
    images_split: str = flag("val", "Split to read when --images is a data folder.")
    max_images: int | None = flag(None, "Stop after so many photos; empty: all.", ge=1)
    output_dir: str = flag(..., "Folder for ids/, colours/ and overlays/.", key=False)
    dataset: str | None = flag(None, "Data set whose colours are used when the model does not tell.")
    num_classes: int = flag(21, "Classes of a checkpoint's model.", weights=True, ge=1)
    crop_size: tuple[int, int] = flag((513, 513), "Input size of a checkpoint's model, pixels.", repeated=True)
    output_stride: OutputStride = flag(8, "Ratio of input to backbone-output resolution.")
    inference_scales: tuple[float, ...] = flag((1.0,), "Test-time scales; several are averaged.", repeated=True)
    add_flipped_images: bool = flag(False, "Mirrored images join the average over several scales.")

    @model_validator(mode="after")
    def _check(self) -> "PredictConfig":
        check_pooling(self, "crop_size", self.crop_size)
        check_classes(self, self.num_classes)
        return self


class SummaryConfig(ModelConfig, SeedConfig):
    """Print the layers, variables and multiply-adds of a network."""

    dataset: str | None = flag(None, "Data set, whose classes are the model's: a name or the path of a dataset.yaml.")
    num_classes: int = flag(21, "Classes of the model; empty: the data set's.", weights=True, ge=1)
    crop_size: tuple[int, int] = flag((513, 513), "Input size, height then width, pixels.", repeated=True)

    @model_validator(mode="after")
    def _check(self) -> "SummaryConfig":
        check_pooling(self, "crop_size", self.crop_size)
        check_classes(self, self.num_classes)
        return self


def _classes_of(dataset: str) -> int | None:
    """Classes of a data set; None where only the records can tell."""
    # Imported when asked for: the data sets' tables are described in the configuration's own terms.
    from deeplab.data.datasets import DATASETS, get_dataset

    return get_dataset(dataset).num_classes if dataset in DATASETS or is_dataset_file(dataset) else None


def _only(name: str, given: int, allowed: int, remedy: str) -> None:
    if given != allowed:
        raise ValueError(f"{name}={given} is not supported (only {allowed}): {remedy}")


def _fits(largest_side: int | None, crop_size: tuple[int, int]) -> None:
    if largest_side is not None and largest_side > max(crop_size):
        height, width = crop_size
        raise ValueError(
            f"crop_size={height},{width} is smaller than the {largest_side} pixels that max_resize_value leaves; "
            f"give at least {largest_side},{largest_side}"
        )


def _no_quantisation(delay_step: int) -> None:
    if delay_step >= 0:
        raise ValueError(
            f"quantize_delay_step={delay_step}: fake quantisation is not supported; leave the flag out (-1)"
        )


CONFIGS: dict[str, type[Flags]] = {
    "sample": SampleConfig,
    "fetch": FetchConfig,
    "convert": ConvertConfig,
    "train": TrainingConfig,
    "archive": ArchiveConfig,
    "evaluate": EvaluationConfig,
    "export": ExportConfig,
    "predict": PredictConfig,
}
