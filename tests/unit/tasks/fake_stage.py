"""Stands in for ``python -m deeplab``: makes the outputs of every stage in a moment, without TensorFlow.

Run as ``fake_stage.py STAGE --flag=value ...``; every start is counted in the file named by FAKE_STAGE_CALLS.
"""

import json
import os
import shutil
import sys
import time
import urllib.request
from pathlib import Path

from PIL import Image

from deeplab.config import CONFIGS, ModelDescription, TrainingConfig, resolve
from deeplab.config.command_line import parse
from deeplab.data.datasets import get_dataset
from deeplab.errors import Stopped
from deeplab.stage import OutputFile, OutputFolder, Progress, emit_metrics, stop
from deeplab.stage.inputs import input_digest
from deeplab.stage.versions import CODE_VERSIONS

_INPUTS = {
    "sample": [],
    "fetch": [],
    "convert": ["source"],
    "train": ["dataset_dir"],
    "archive": ["train_logdir"],
    "evaluate": ["dataset_dir", "checkpoint_dir"],
    "export": ["checkpoint_path"],
    "predict": ["model", "images"],
}


def main() -> None:
    stage, arguments = sys.argv[1], sys.argv[2:]
    with Path(os.environ["FAKE_STAGE_CALLS"]).open("a", encoding="utf-8") as calls:
        calls.write(f"{stage}\n")
    if os.environ.get("FAKE_STAGE_FAILS") == stage:
        print("deeplab " + stage + ": ran out of luck; try again", file=sys.stderr)
        raise SystemExit(1)
    if os.environ.get("FAKE_STAGE_HANGS") == stage:
        hang(stage)
    given = parse(CONFIGS[stage], arguments)
    config = resolve(CONFIGS[stage], given, _description(stage, given))
    inputs = {name: input_digest(getattr(config, name)) for name in _INPUTS[stage]}
    print(f"2026-01-01 00:00:00,000 INFO {stage} starts", file=sys.stderr)
    if stage in ("sample", "export"):
        path = config.output_path if stage == "sample" else config.export_path
        with OutputFile(path, stage, CODE_VERSIONS[stage], config, inputs) as file:
            file.temporary.write_text(f"{stage} {config.key_parameters()} {inputs}")
            if stage == "export":
                shutil.copyfile(Path(config.checkpoint_path) / "model.json", file.beside(".model.json"))
            file.finish()
        return
    folder_flag = {"train": "train_logdir", "evaluate": "eval_logdir"}.get(stage, "output_dir")
    folder = OutputFolder(
        getattr(config, folder_flag),
        stage,
        CODE_VERSIONS[stage],
        config,
        inputs,
        growing=("training_number_of_steps",),
        adopts=("checkpoint",),
    )
    with folder:
        folder.finish(*globals()[f"_{stage}"](config, folder.path))


def hang(stage: str) -> None:
    """Work until told to stop, then say so, as a training does after its checkpoint."""
    stop.install()
    print(f"{stage} hangs in process {os.getpid()}", file=sys.stderr, flush=True)
    try:
        with stop.polite_stop():
            while not stop.stop_requested():
                time.sleep(0.05)
    except Stopped as stopped:
        print(stopped, file=sys.stderr)
        raise SystemExit(stopped.exit_code) from None


def _description(stage: str, given: dict) -> ModelDescription | None:
    place = given.get("checkpoint_dir") or given.get("checkpoint_path")
    if place:
        return ModelDescription.read(Path(place) / "model.json")
    beside = Path(f"{given.get('model')}.model.json")
    return ModelDescription.read(beside) if beside.is_file() else None


def _fetch(config, folder: Path):
    target = folder / config.source.rpartition("/")[2]
    if "://" in config.source:
        urllib.request.urlretrieve(config.source, target)
    else:
        shutil.copyfile(config.source, target)
    return [target], []


def _convert(config, folder: Path):
    (folder / "train-00000-of-00001.tfrecord").write_text(Path(config.source).read_text())
    (folder / "tfrecords.tar.gz").write_text("packed")
    return [folder / "train-00000-of-00001.tfrecord", folder / "tfrecords.tar.gz"], []


def _train(config: TrainingConfig, folder: Path):
    steps, state = config.training_number_of_steps, folder / "checkpoint"
    done = int(state.read_text().partition("\n")[0].rstrip('"').rpartition("-")[2]) if state.exists() else 0
    print(f"2026-01-01 00:00:00,000 INFO starting at step {done}", file=sys.stderr)
    progress = Progress(steps, "steps", done=done)
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as metrics:
        for step in range(done + 1, steps + 1):
            point = {"step": step, "loss": 3.0 / step, "learning_rate": 0.1}
            emit_metrics(**point)
            metrics.write(json.dumps(point) + "\n")
            progress.advance()
    checkpoint = folder / f"model.ckpt-{steps}.index"
    checkpoint.write_text(f"weights after {steps}")
    state.write_text(f'model_checkpoint_path: "model.ckpt-{steps}"\nall_model_checkpoint_paths: "model.ckpt-1"\n')
    dataset = get_dataset(config.dataset)
    description = ModelDescription.of(config, config.train_crop_size, dataset.num_classes, **dataset.description())
    description.write(folder / "model.json")
    return [checkpoint, folder / "model.json"], [state, folder / "metrics.jsonl"]


def _archive(config, folder: Path):
    (folder / "checkpoints.tar.gz").write_text("packed")
    return [folder / "checkpoints.tar.gz"], []


def _evaluate(config, folder: Path):
    dataset = get_dataset(config.dataset)
    rows = [
        {"id": number, "name": name, "iou": None if number == 1 else 0.5, "accuracy": 0.75, "pixels": 10}
        for number, name in enumerate(dataset.class_names)
    ]
    scores = {"miou": 0.5, "pixel_accuracy": 0.75, "mean_accuracy": 0.75, "frequency_weighted_iou": 0.6}
    results = {**scores, "per_class": rows, "images": 2, "settings": config.key_parameters()}
    (folder / "results.json").write_text(json.dumps(results))
    Image.new("RGB", (300, 100), "teal").save(folder / "sheet.png")
    return [folder / "results.json"], [folder / "sheet.png"]


def _predict(config, folder: Path):
    paths = []
    for kind, suffix in (("ids", "png"), ("colours", "png"), ("overlays", "jpg")):
        (folder / kind).mkdir()
        paths.append(folder / kind / f"photo <1>.{suffix}")
        Image.new("RGB", (64, 48), "orange").save(paths[-1])
    return paths, []


if __name__ == "__main__":
    main()
