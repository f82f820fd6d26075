"""``deeplab predict``: photos to ``ids/NAME.png``, ``colours/NAME.png`` and ``overlays/NAME.jpg``."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from deeplab.config import ClassDescription, ExportConfig, ModelDescription, PredictConfig, resolve, validate
from deeplab.config.advice import rates_of_another_stride
from deeplab.config.base import is_given
from deeplab.data.colours import pascal_colours
from deeplab.data.datasets import get_dataset
from deeplab.errors import ConfigError, DataError
from deeplab.inference.photos import photo_count, photo_files, read_photos
from deeplab.inference.segmenter import Segmenter, description_beside, from_checkpoint, read_graph, usable_crop
from deeplab.model.checkpoint import open_checkpoint
from deeplab.stage import OutputFolder, Progress
from deeplab.stage.inputs import input_digest
from deeplab.stage.manifest import combined_digest, sha256_of
from deeplab.stage.versions import CODE_VERSIONS

Array = npt.NDArray[Any]
_log = logging.getLogger(__name__)
# Share of the colour mask in an overlay.
_OPACITY = 0.55
# What an export has decided. How large a photo the graph takes can be told where no description does.
_FROZEN = sorted(set(ExportConfig.key_fields()) & set(PredictConfig.key_fields()) - {"dataset", "seed"})
_SIZES = ("crop_size", "min_resize_value", "max_resize_value", "resize_factor")


def run(given: Mapping[str, Any]) -> None:
    """Run the stage on the values of a command line."""
    with _open_model(given) as (segmenter, config, description, model_digest):
        inputs = {"model": model_digest, "images": _images_digest(config.images)}
        with OutputFolder(config.output_dir, "predict", CODE_VERSIONS["predict"], config, inputs) as folder:
            if folder.finished:
                _log.info("%s: already predicted with these flags", folder.path)
                return
            folder.finish(_predict(segmenter, config, _colours(config, description), folder.path))
            _log.info("masks and overlays: %s", folder.path)


@contextmanager
def _open_model(
    given: Mapping[str, Any],
) -> Iterator[tuple[Segmenter, PredictConfig, ModelDescription | None, str]]:
    path = _lone_graph(Path(str(given.get("model") or ".")))
    if path.is_file() and (path.suffix == ".pb" or description_beside(path).is_file()):
        graph, description = read_graph(path)
        config = resolve(PredictConfig, given, description)
        _refuse_what_is_frozen(config, given, description)
        yield Segmenter(graph, usable_crop(_export_config(config))), config, description, _graph_digest(path)
        return
    with open_checkpoint(path) as checkpoint:
        config = resolve(PredictConfig, given, checkpoint.description)
        if advice := rates_of_another_stride(config, checkpoint.description):
            _log.warning("%s", advice)
        segmenter = from_checkpoint(checkpoint, _export_config(config))
        yield segmenter, config, checkpoint.description, checkpoint.digest()


def _refuse_what_is_frozen(
    config: PredictConfig, given: Mapping[str, Any], description: ModelDescription | None
) -> None:
    """A graph computes what it was exported for.

    A flag may repeat that, tell the sizes of a graph without description, or give the test-time scales and mirrored
    images their defaults, as workflow services do that always give every flag.

    Raises:
        ConfigError: for a flag that would change it.
    """
    allowed = {name: PredictConfig.model_fields[name].default for name in ("inference_scales", "add_flipped_images")}
    if description is None:
        allowed |= {name: getattr(config, name) for name in _SIZES}
    else:
        frozen = resolve(PredictConfig, dict.fromkeys(("model", "images", "output_dir"), "-"), description)
        allowed |= {name: getattr(frozen, name) for name in (*description.fields, "num_classes", "crop_size")}
    for name in _FROZEN:
        value = getattr(config, name)
        if name in given and is_given(given[name]) and (name not in allowed or allowed[name] != value):
            shown = ",".join(str(item) for item in value) if isinstance(value, tuple) else value
            raise ConfigError(
                f"--{name}={shown} cannot change a frozen graph, which computes what it was exported for; leave the "
                "flag out, or name the checkpoint as --model"
            )


def _lone_graph(path: Path) -> Path:
    """A folder that holds one exported graph stands for that graph."""
    if not path.is_dir():
        return path
    graphs = [entry for entry in path.iterdir() if entry.suffix == ".pb" or description_beside(entry).is_file()]
    return graphs[0] if len(graphs) == 1 else path


def _export_config(config: PredictConfig) -> ExportConfig:
    """Predicting from a checkpoint is predicting from its export."""
    shared = set(ExportConfig.model_fields) & set(PredictConfig.model_fields)
    values = config.model_dump(include=shared)
    return validate(ExportConfig, {**values, "checkpoint_path": "-", "export_path": "-"})


def _graph_digest(path: Path) -> str:
    beside = description_beside(path)
    parts = {"": sha256_of(path)}
    if beside.is_file():
        parts[".model.json"] = sha256_of(beside)
    return combined_digest(parts)


def _images_digest(source: str) -> str:
    place = Path(source)
    if place.exists():
        return input_digest(place)
    return combined_digest({str(path): sha256_of(path) for path in photo_files(source)})


def _colours(config: PredictConfig, description: ModelDescription | None) -> Array:
    """uint8 [classes, 3]: of --dataset, else of the model, else PASCAL's for any number of classes."""
    if config.dataset is not None and (description is None or description.dataset != config.dataset):
        return np.asarray(get_dataset(config.dataset).colours, np.uint8)
    classes: tuple[ClassDescription, ...] = description.classes if description is not None else ()
    if classes:
        return np.asarray([entry.colour for entry in classes], np.uint8)
    return np.asarray(pascal_colours(256), np.uint8)


def _predict(segmenter: Segmenter, config: PredictConfig, colours: Array, folder: Path) -> Iterator[Path]:
    total = photo_count(config.images, config.images_split, config.max_images)
    progress = Progress(total, "photos")
    for kind in ("ids", "colours", "overlays"):
        (folder / kind).mkdir(exist_ok=True)
    for name, photo in read_photos(config.images, config.images_split, config.max_images):
        try:
            labels = segmenter.segment(photo)
        except DataError as error:
            raise DataError(f"{name}: {error}") from None
        if labels.max(initial=0) >= len(colours):
            raise DataError(
                f"{name}: the model predicts class {labels.max()}, but there are colours for {len(colours)} classes; "
                "pass the --dataset it was trained on"
            )
        painted = Image.fromarray(colours[labels])
        yield _save(Image.fromarray(labels), folder / "ids" / f"{name}.png")
        yield _save(painted, folder / "colours" / f"{name}.png")
        yield _save(_overlay(photo, painted), folder / "overlays" / f"{name}.jpg", quality=92)
        progress.advance()
    progress.close()


def _overlay(photo: Image.Image, painted: Image.Image) -> Image.Image:
    """The photo under its colour mask; where the mask is black (background) the photo shows unchanged."""
    coloured = Image.fromarray(np.asarray(painted).any(axis=2))
    return Image.composite(Image.blend(photo, painted, _OPACITY), photo, coloured)


def _save(picture: Image.Image, path: Path, **options: Any) -> Path:
    temporary = path.with_name(f".tmp-{path.name}")
    picture.save(temporary, format="JPEG" if path.suffix == ".jpg" else "PNG", **options)
    return temporary.replace(path)
