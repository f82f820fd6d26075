"""``model.json``: what a checkpoint or a graph is, so that nobody repeats flags.

It is written beside every checkpoint and into every archive and export. Fields that decide the weights may not
be contradicted by a flag; run-time fields (output stride, rates, crop, resize) are defaults that a flag replaces.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.config.base import AnyFlags, Flags, can_be_unset, is_given, validate
from deeplab.config.model import ModelConfig, PreprocessingConfig
from deeplab.errors import ConfigError

FILE_NAME = "model.json"
# Empty means "not given" in forms and steps, so taking a value back needs a word.
UNSET = "none"
# Every stage names its crop after itself; the description holds training's. Where photos are resized, later stages
# take whole photos instead of crops, so their default is at least the largest side that a resize leaves.
_CROP_FIELDS = ("train_crop_size", "eval_crop_size", "crop_size")


class ClassDescription(BaseModel):
    """One class: its name and its colour (red, green, blue; 0..255)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    colour: tuple[int, int, int]


class ModelDescription(BaseModel):
    """The content of ``model.json``; holds no path, time or host."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    format: int = 1
    fields: dict[str, Any]
    num_classes: int
    crop_size: tuple[int, int]
    dataset: str | None = None
    ignore_label: int | None = None
    classes: tuple[ClassDescription, ...] = ()

    @classmethod
    def of(
        cls, config: ModelConfig, crop_size: tuple[int, int], num_classes: int, **dataset: Any
    ) -> "ModelDescription":
        """Describe the model that a stage's configuration builds."""
        names = {*ModelConfig.key_fields(), *PreprocessingConfig.key_fields()} & set(type(config).model_fields)
        fields = config.model_dump(mode="json", include=names)
        return cls(fields=dict(sorted(fields.items())), crop_size=crop_size, num_classes=num_classes, **dataset)

    def write(self, path: Path) -> None:
        """Write as indented JSON, replacing the file in one step."""
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)

    @classmethod
    def read(cls, path: Path) -> "ModelDescription":
        """Read a file.

        Raises:
            ConfigError: if it is not a description that this version understands.
        """
        try:
            return cls.model_validate_json(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            reason = str(error).splitlines()[0]
            raise ConfigError(f"{path}: not a model description ({reason}); delete it and pass the flags") from None


def resolve(
    config_class: type[AnyFlags], given: Mapping[str, Any], description: ModelDescription | None = None
) -> AnyFlags:
    """A stage's configuration: what was given, over ``model.json``, over the original's defaults.

    An empty value is one not given; the word ``none`` unsets what can be unset.

    Raises:
        ConfigError: for a bad value, or a flag that contradicts how the checkpoint was trained.
    """
    given = {name: _read_none(config_class, name, value) for name, value in given.items() if is_given(value)}
    if description is None:
        return validate(config_class, given)
    supplied = _supplied(config_class, description, given)
    config = validate(config_class, {**supplied, **given})
    _refuse_contradictions(config, given, supplied)
    return config


def _read_none(config_class: type[Flags], name: str, value: Any) -> Any:
    """None for the word that takes back a value which ``model.json`` or a file supplies."""
    info = config_class.model_fields.get(name)
    return None if info is not None and value in (UNSET, [UNSET]) and can_be_unset(info) else value


def _supplied(config_class: type[Flags], description: ModelDescription, given: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {**description.fields, "num_classes": description.num_classes}
    resize = validate(PreprocessingConfig, {**description.fields, **given}, only_known=True)
    crop = tuple(max(side, resize.largest_side or 0) for side in description.crop_size)
    values.update(dict.fromkeys(_CROP_FIELDS, crop))
    if description.dataset is not None:
        values["dataset"] = description.dataset
    return {name: value for name, value in values.items() if name in config_class.model_fields}


def _refuse_contradictions(config: Flags, given: Mapping[str, Any], supplied: Mapping[str, Any]) -> None:
    trained = validate(type(config), {**config.model_dump(), **supplied})
    asked = {name.removesuffix("_json") for name in given}
    for name in type(config).weight_fields():
        here, there = getattr(config, name), getattr(trained, name)
        if name in asked and here != there:
            raise ConfigError(
                f"--{name}={_text(here)} contradicts the checkpoint, which was trained with "
                f"{name}={_text(there)}; leave the flag out"
            )
    if isinstance(config, ModelConfig) and isinstance(trained, ModelConfig) and "atrous_rates" in given:
        here, there = config.atrous_rates or (), trained.atrous_rates or ()
        if len(here) != len(there):
            raise ConfigError(
                f"--atrous_rates={_text(here)}: {len(here)} rates, but the checkpoint was trained with "
                f"{len(there)} ({_text(there)}); give as many"
            )


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value) or "(none)"
    return "(unset)" if value is None else str(value)
