"""Stage ``sample``: a small data set of made-up scenes, as a zip archive in the layout of ADEChallengeData2016.

For demonstrations and tests: no download, no licence, the same bytes for the same seed. Photos have several sizes and
orientations, and one is gray, since real data sets have such photos too.
"""

import io
import logging
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from deeplab.config import SampleConfig, resolve
from deeplab.data.images import encode_png
from deeplab.data.scenes import Scene, draw_scene
from deeplab.stage import OutputFile, Progress, emit_metrics
from deeplab.stage.versions import CODE_VERSIONS

_ROOT = "ADEChallengeData2016"
# Folder of the layout -> what its files are called.
_FOLDERS = {"training": "ADE_train", "validation": "ADE_val"}
# Bounds of the shorter and the longer side, pixels.
_SHORT_SIDE, _LONG_SIDE = (97, 160), (131, 200)
# Number of the training pair whose photo is gray.
_GRAY = 3
_JPEG_QUALITY = 92
# The earliest time that a zip archive can tell: archives of one seed are the same whenever they are made.
_TIME = (1980, 1, 1, 0, 0, 0)

_log = logging.getLogger(__name__)


def run(given: Mapping[str, Any]) -> None:
    """Draw the data set; ``given`` are flags of ``SampleConfig``.

    Raises:
        ConfigError: for a bad flag.
        OutputError: if the file cannot be written.
    """
    config = resolve(SampleConfig, given)
    with OutputFile(config.output_path, "sample", CODE_VERSIONS["sample"], config, {}) as output:
        if output.finished:
            _log.info("%s: already drawn", output.path)
            return
        counts = {"training": config.size, "validation": config.size // 4}
        _write(output.temporary, counts, config.seed)
        emit_metrics(training=counts["training"], validation=counts["validation"])
        output.finish()


def _write(path: Path, counts: Mapping[str, int], seed: int) -> None:
    progress = Progress(sum(counts.values()), "pairs")
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in _members(counts, seed, progress):
            entry = zipfile.ZipInfo(f"{_ROOT}/{name}", _TIME)
            # Otherwise the entry tells which system it was made on.
            entry.create_system, entry.external_attr = 3, 0o644 << 16
            archive.writestr(entry, content)
    progress.close()


def _members(counts: Mapping[str, int], seed: int, progress: Progress) -> Iterator[tuple[str, bytes]]:
    for index, (folder, stem) in enumerate(_FOLDERS.items()):
        for number in range(1, counts[folder] + 1):
            # A generator a scene: a larger data set begins with the scenes of a smaller one.
            scene = _scene(np.random.default_rng([seed, index, number]))
            gray = folder == "training" and number == _GRAY
            yield f"images/{folder}/{stem}_{number:08d}.jpg", _jpeg(scene, gray=gray)
            yield f"annotations/{folder}/{stem}_{number:08d}.png", encode_png(scene.labels)
            progress.advance()


def _scene(random: np.random.Generator) -> Scene:
    short = int(random.integers(*_SHORT_SIDE, endpoint=True))
    long = int(random.integers(max(short, _LONG_SIDE[0]), _LONG_SIDE[1], endpoint=True))
    height, width = (short, long) if random.random() < 0.7 else (long, short)
    return draw_scene(height, width, random)


def _jpeg(scene: Scene, *, gray: bool) -> bytes:
    image, buffer = Image.fromarray(scene.photo), io.BytesIO()
    (image.convert("L") if gray else image).save(buffer, "JPEG", quality=_JPEG_QUALITY)
    return buffer.getvalue()
