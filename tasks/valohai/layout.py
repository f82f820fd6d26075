"""How a stage's step in ``valohai.yaml`` names what the stage itself calls otherwise."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

# The code that is handed over: the folder that holds the packages and valohai.yaml.
CODE = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Layout:
    """A stage as a step.

    Attributes:
        step: its exact name.
        inputs: flag -> input.
        manifest: the output that holds the stage's manifest.
        handed_on: outputs that later stages read.
        small: outputs that are worth having here at once.
        files: outputs that are files of the stage.
        unpacked: outputs that are archives of the stage's files.
        renamed: output -> the file's name where the stage runs here; others keep theirs.
    """

    step: str
    inputs: Mapping[str, str]
    handed_on: tuple[str, ...]
    manifest: str = "manifest.json"
    small: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    unpacked: tuple[str, ...] = ()
    renamed: Mapping[str, str] = field(default_factory=dict)

    def local_name(self, output: str) -> str:
        """What a file is called where the stage runs here."""
        return self.renamed.get(output, output)


_TRAIN = "Train DeepLab model"
# The input of the training step that holds checkpoints to go on from.
EARLIER_CHECKPOINTS = "checkpoints"
LAYOUTS = {
    "convert": Layout(
        "Load data and convert",
        {"source": "ADE20K"},
        ("tfrecords.tar.gz",),
        files=("tfrecords.tar.gz",),
        unpacked=("tfrecords.tar.gz",),
    ),
    "train": Layout(
        _TRAIN,
        {"dataset_dir": "tfrecords", "tf_initial_checkpoint": "initial_checkpoint"},
        ("checkpoints.tar.gz",),
        manifest="train.manifest.json",
        small=("model.json", "metrics.jsonl"),
        files=("metrics.jsonl",),
        unpacked=("checkpoints.tar.gz",),
    ),
    "archive": Layout(
        _TRAIN, {}, ("checkpoints.tar.gz",), manifest="archive.manifest.json", files=("checkpoints.tar.gz",)
    ),
    "evaluate": Layout(
        "Evaluate checkpoint",
        {"dataset_dir": "tfrecords", "checkpoint_dir": "checkpoints"},
        (),
        small=("results.json", "sheet.png"),
        files=("results.json", "sheet.png"),
    ),
    "export": Layout(
        "Export trained model to TF frozen graph",
        {"checkpoint_path": "checkpoints"},
        ("frozen_graph", "frozen_graph.model.json"),
        manifest="frozen_graph.manifest.json",
        small=("frozen_graph.model.json",),
        files=("frozen_graph", "frozen_graph.model.json"),
        renamed={
            "frozen_graph": "frozen_inference_graph.pb",
            "frozen_graph.model.json": "frozen_inference_graph.pb.model.json",
        },
    ),
    "predict": Layout("Predict images", {"model": "model", "images": "images"}, (), unpacked=("masks.tar",)),
}
