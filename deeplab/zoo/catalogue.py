"""The catalogue of published checkpoints, read from ``catalogue.yaml``."""

import difflib
from collections.abc import Mapping
from functools import cache, cached_property
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from deeplab.config import ModelConfig, ModelDescription, PreprocessingConfig, validate
from deeplab.data.datasets import get_dataset
from deeplab.errors import ConfigError


class NetworkConfig(ModelConfig, PreprocessingConfig):
    """All flags that say what a published network is and how its images are resized."""


class Score(BaseModel):
    """One published measurement.

    Attributes:
        miou: mean intersection over union, percent.
        split: what it was measured on.
        output_stride: of the network when it was measured.
        scales: test-time scales, averaged.
        flips: whether mirrored images joined the average.
        pixel_accuracy: percent, where published.
        billion_multiply_adds: of one image, over all its passes, where published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    miou: float
    split: Literal["val", "test"]
    output_stride: Literal[8, 16, 32]
    scales: tuple[float, ...] = (1.0,)
    flips: bool = False
    pixel_accuracy: float | None = None
    billion_multiply_adds: float | None = None


class Published(BaseModel):
    """One published checkpoint.

    Attributes:
        id: what the zoo's page calls it.
        archive: name of the archive without ``.tar.gz``; also the folder it is unpacked to.
        kind: a whole segmentation model, or a backbone to start training from.
        dataset: a registered data set; of a backbone, what it was trained on.
        flags: fields of ``NetworkConfig`` that differ from the defaults.
        num_classes: outputs; None for a backbone.
        crop_size: height and width, in pixels, that images are evaluated at; None for a backbone.
        megabytes: the archive's size as published, rounded.
        scores: measurements; the first is the one whose output stride stands in ``flags``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    archive: str
    kind: Literal["segmentation", "backbone"]
    dataset: str
    flags: Mapping[str, Any]
    num_classes: int | None = None
    crop_size: tuple[int, int] | None = None
    megabytes: float | None = None
    scores: tuple[Score, ...] = ()

    @cached_property
    def network(self) -> NetworkConfig:
        """The flags, checked, with the defaults."""
        return validate(NetworkConfig, self.flags)

    @property
    def file_name(self) -> str:
        """Name of the archive's file."""
        return f"{self.archive}.tar.gz"

    def description(self) -> ModelDescription | None:
        """The ``model.json`` for the unpacked checkpoint; None for a backbone, which is no model by itself."""
        if self.num_classes is None or self.crop_size is None:
            return None
        dataset = get_dataset(self.dataset).description()
        return ModelDescription.of(self.network, self.crop_size, self.num_classes, **dataset)

    def flags_at(self, output_stride: int) -> dict[str, Any]:
        """What a stride needs that ``model.json`` does not say: the stride itself, and atrous rates scaled to it."""
        if output_stride == self.network.output_stride:
            return {}
        rates = tuple(rate * self.network.output_stride // output_stride for rate in self.network.atrous_rates or ())
        return {"output_stride": output_stride, **({"atrous_rates": rates} if rates else {})}


class Catalogue(BaseModel):
    """All published checkpoints, and the address that their archives lie under."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_url: str
    checkpoints: tuple[Published, ...]

    def find(self, name: str) -> Published:
        """The checkpoint of that id or archive name.

        Raises:
            ConfigError: for an unknown name, telling the nearest.
        """
        wanted = name.removesuffix(".tar.gz")
        known = self._by_name
        if wanted not in known:
            near = difflib.get_close_matches(wanted, known, n=1)
            hint = f"did you mean {near[0]}?" if near else "`deeplab zoo list` names them all"
            raise ConfigError(f"no published checkpoint is called {name!r}; {hint}")
        return known[wanted]

    def of_dataset(self, dataset: str | None) -> tuple[Published, ...]:
        """Those of one data set; all for None.

        Raises:
            ConfigError: if there are none, listing the data sets.
        """
        found = tuple(entry for entry in self.checkpoints if dataset in (None, entry.dataset))
        if not found:
            names = sorted({entry.dataset for entry in self.checkpoints})
            raise ConfigError(f"--dataset={dataset}: no published checkpoint; one of {', '.join(names)}")
        return found

    @property
    def _by_name(self) -> dict[str, Published]:
        named = {entry.id: entry for entry in self.checkpoints}
        return named | {entry.archive: entry for entry in self.checkpoints}


@cache
def read_catalogue() -> Catalogue:
    """The catalogue that comes with this package."""
    text = (resources.files("deeplab.zoo") / "catalogue.yaml").read_text(encoding="utf-8")
    content = yaml.safe_load(text)
    del content["shared"]  # only there to be referred to
    return Catalogue.model_validate(content)
