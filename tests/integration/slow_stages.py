"""Training flows with one stage that takes its time, so that it can be stopped in the midst of it."""

import io
import itertools
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from deeplab.data import sample
from flows.command_line import merge
from tests.azurite import Azurite
from tests.faulty_proxy import in_front_of
from tests.integration.deployed_runs import tiny

STAGES = ("sample", "fetch", "convert", "train", "archive", "evaluate", "export", "predict")
# Pixels of the enlarged scenes, and how often each is there: to check them all takes ten seconds and more.
_SIZE, _COPIES = (2400, 1800), 60
_PHOTOS = 100
# Bytes a second of each of four connections.
_RATE = 400_000


@dataclass(frozen=True)
class Material:
    """What makes stages slow.

    Attributes:
        archive: a large data set.
        photos: a folder of many large photos.
        address: the data set at a service that takes its time.
    """

    archive: Path
    photos: Path
    address: str
    _attempts: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def parameters(self, stage: str, store: str) -> dict[str, Any]:
        """Of a run whose stage takes long, and was never made before; those before it are reused if they are there."""
        seed = {"seed": next(self._attempts)}
        short = tiny(store, train={"training_number_of_steps": 2})
        slow: dict[str, dict[str, Any]] = {
            "sample": {"sample": {"size": 100_000, **seed}},
            "fetch": {"fetch": {"source": self.address}},
            "convert": {
                "fetch": {"source": str(self.archive)},
                "convert": {"validation": "decode", "num_threads": 1, **seed},
            },
            "train": {"train": {"training_number_of_steps": 100_000, "save_interval_steps": 5, **seed}},
            "archive": {"train": seed},
            "evaluate": {
                "sample": {"size": 400},
                "evaluate": {"eval_scales": [0.5, 0.75, 1.0, 1.25, 1.5], "add_flipped_images": True, **seed},
            },
            "export": {"export": seed},
            "predict": {"predict": {"images": str(self.photos), "max_images": _PHOTOS, **seed}},
        }
        return merge(short, slow[stage])


@contextmanager
def material(folder: Path, blobs: Azurite) -> Iterator[Material]:
    """Draw it, and serve it until the end of the block.

    Args:
        folder: for the files.
        blobs: the service that holds the archive.
    """
    archive, photos = folder / "large.zip", folder / "photos"
    _draw(folder / "small.zip", archive, photos)
    container = blobs.create_container(public=True)
    blobs.upload(container, archive.name, archive.read_bytes())
    with in_front_of(blobs.endpoint) as proxy:
        proxy.rate = _RATE
        yield Material(archive, photos, f"{proxy.endpoint}/{container}/{archive.name}")


def _draw(small: Path, archive: Path, photos: Path) -> None:
    """Enlarge a drawn data set, and take each of its pairs many times."""
    sample.run({"output_path": str(small), "size": 8})
    photos.mkdir()
    numbers = iter(range(_PHOTOS))
    with zipfile.ZipFile(small) as before, zipfile.ZipFile(archive, "w") as after:
        for name in before.namelist():
            content = _enlarged(before.read(name))
            for copy in range(_COPIES):
                after.writestr(name.replace("_0000", f"_{copy:04d}"), content)
                if name.endswith(".jpg") and (number := next(numbers, None)) is not None:
                    (photos / f"{number}.jpg").write_bytes(content)


def _enlarged(content: bytes) -> bytes:
    buffer = io.BytesIO()
    with Image.open(io.BytesIO(content)) as picture:
        # A mask's values are labels.
        way = Image.Resampling.BICUBIC if picture.format == "JPEG" else Image.Resampling.NEAREST
        picture.resize(_SIZE, way).save(buffer, picture.format)
    return buffer.getvalue()
