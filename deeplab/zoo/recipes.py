"""What to type for a published checkpoint; the folders in the commands are suggestions."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from deeplab.config import CONFIGS, Flags
from deeplab.config.base import is_repeated
from deeplab.zoo.catalogue import NetworkConfig, Published, Score

# The head that the published Xception models have, for a training that starts from a backbone.
_HEAD = {"output_stride": 16, "atrous_rates": (6, 12, 18), "decoder_output_stride": (4,)}


class Recipe(NamedTuple):
    """What to type, and what for."""

    purpose: str
    words: str


def recipes(published: Published) -> list[Recipe]:
    """Commands for this checkpoint; the first fetches it, and those after it find its ``model.json``."""
    fetch = Recipe("fetch it", f"deeplab zoo fetch {published.id} --output_dir=zoo")
    if published.kind == "backbone":
        return [fetch, _training(published)]
    place = f"zoo/{published.archive}"
    measured = [_evaluation(published, score, number) for number, score in enumerate(published.scores, 1)]
    export = {"checkpoint_path": place, "export_path": f"graphs/{published.id}.pb"}
    predict = {"model": place, "images": "photos", "output_dir": f"masks/{published.id}"}
    return [
        fetch,
        *measured,
        Recipe("export it", _command("export", export)),
        Recipe("segment photos", _command("predict", predict)),
    ]


def describe_score(score: Score) -> str:
    """One measurement in words."""
    scales = ", ".join(f"{scale:g}" for scale in score.scales)
    words = [f"mIoU {score.miou:.2f} % on {score.split}"]
    if score.pixel_accuracy is not None:
        words.append(f"pixel accuracy {score.pixel_accuracy:.2f} %")
    words.append(f"output stride {score.output_stride}")
    words.append(f"scales {scales}" if len(score.scales) > 1 else f"scale {scales}")
    words.append("mirrored too" if score.flips else "not mirrored")
    if score.billion_multiply_adds is not None:
        words.append(f"{score.billion_multiply_adds:g} billion multiply-adds")
    return "; ".join(words)


def bare_flags(published: Published) -> list[Recipe]:
    """The flags of a segmentation model, for stages that find no ``model.json`` beside it."""
    network = {name: published.flags[name] for name in NetworkConfig.model_fields if name in published.flags}
    evaluate = {"dataset": published.dataset, "eval_crop_size": published.crop_size, **network}
    export = {"num_classes": published.num_classes, "crop_size": published.crop_size, **network}
    return [
        Recipe("evaluate", " ".join(_words(CONFIGS["evaluate"], evaluate))),
        Recipe("export, predict", " ".join(_words(CONFIGS["export"], export))),
    ]


def _training(published: Published) -> Recipe:
    values = {
        "dataset": "ade20k",
        "dataset_dir": "records/ade20k",
        "train_logdir": "run",
        "tf_initial_checkpoint": f"zoo/{published.archive}",
        **published.flags,
        **_HEAD,
    }
    return Recipe("start a training from it", _command("train", values))


def _evaluation(published: Published, score: Score, number: int) -> Recipe:
    values: dict[str, Any] = {
        "checkpoint_dir": f"zoo/{published.archive}",
        "dataset_dir": f"records/{published.dataset}",
        "eval_logdir": f"scores/{published.id}-{number}",
    }
    if score.split != "val":
        values["eval_split"] = score.split
    values |= published.flags_at(score.output_stride)
    if score.scales != (1.0,):
        values["eval_scales"] = score.scales
    if score.flips:
        values["add_flipped_images"] = True
    return Recipe(f"measure it: {describe_score(score)}", _command("evaluate", values))


def _command(stage: str, values: Mapping[str, Any]) -> str:
    return " ".join(["deeplab", stage, *_words(CONFIGS[stage], values)])


def _words(config_class: type[Flags], values: Mapping[str, Any]) -> list[str]:
    words: list[str] = []
    for name, value in values.items():
        items = [_text(item) for item in value] if isinstance(value, (list, tuple)) else [_text(value)]
        repeated = is_repeated(config_class.model_fields[name])
        words += [f"--{name}={item}" for item in (items if repeated else [",".join(items)])]
    return words


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
