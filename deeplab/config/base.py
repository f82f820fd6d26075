"""What every configuration model shares: a flag's metadata, its textual syntax, and how it is read.

A field's name, default and meaning are those of the original's flag. A field declares

* ``key``: whether its value belongs to the identity of the result (paths, threads and logging do not);
* ``weights``: whether it decides which variables exist, so that a checkpoint's value may not be contradicted;
* ``repeated``: whether the flag is given once per value (``--atrous_rates=6 --atrous_rates=12``).
"""

from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from deeplab.config.dataset_name import dataset_identity
from deeplab.errors import ConfigError


def flag(
    default: Any,
    description: str,
    *,
    key: bool = True,
    weights: bool = False,
    repeated: bool = False,
    alias: str | None = None,
    **bounds: Any,
) -> Any:
    """A configuration field that is also a command-line flag.

    Args:
        default: value when nothing supplies one; ``...`` makes the flag required.
        description: one line for help texts and forms.
        key: the value takes part in the stage's KEY.
        weights: the value decides the model's variables.
        repeated: given once per value on the command line.
        alias: a second spelling on the command line, for a name that pydantic keeps for itself.
        **bounds: pydantic constraints such as ``ge=1``.
    """
    extra: dict[str, Any] = {"key": key, "weights": weights, "repeated": repeated, "alias": alias}
    return Field(default, description=description, json_schema_extra=extra, **bounds)


def _metadata(info: FieldInfo, name: str) -> bool:
    extra = info.json_schema_extra
    return bool(extra.get(name, name == "key")) if isinstance(extra, dict) else name == "key"


def is_sequence(info: FieldInfo) -> bool:
    """Whether the field holds several values (a tuple, or an optional tuple)."""
    options = (info.annotation, *get_args(info.annotation))
    return any(get_origin(option) is tuple for option in options)


def is_boolean(info: FieldInfo) -> bool:
    """Whether the field is an on/off flag."""
    return info.annotation is bool or bool in get_args(info.annotation)


def can_be_unset(info: FieldInfo) -> bool:
    """Whether None is a value of the field, and any text is not."""
    options = get_args(info.annotation)
    return type(None) in options and str not in options


def is_repeated(info: FieldInfo) -> bool:
    """Whether the flag is given once per value."""
    return _metadata(info, "repeated")


def alias_of(info: FieldInfo) -> str | None:
    """The flag's second spelling, if it has one."""
    extra = info.json_schema_extra
    return str(extra["alias"]) if isinstance(extra, dict) and extra.get("alias") else None


class Flags(BaseModel):
    """Base of all configuration models: frozen, described, bounded, and closed to unknown names."""

    model_config: ClassVar[ConfigDict] = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _read_text(cls, values: Any) -> Any:
        """Split comma lists, and drop empty text so that an empty form field means "not given"."""
        if not isinstance(values, Mapping):
            return values
        result: dict[str, Any] = {}
        for name, value in values.items():
            info = cls.model_fields.get(name)
            if info is not None and is_sequence(info):
                value = _split(value)
            if info is not None and value == "" and not info.is_required():
                continue
            result[name] = value
        return result

    @classmethod
    def key_fields(cls) -> list[str]:
        """Names of the fields whose values belong to the stage's KEY."""
        return [name for name, info in cls.model_fields.items() if _metadata(info, "key")]

    @classmethod
    def weight_fields(cls) -> list[str]:
        """Names of the fields that decide the model's variables."""
        return [name for name, info in cls.model_fields.items() if _metadata(info, "weights")]

    def key_parameters(self) -> dict[str, Any]:
        """The KEY fields and their values, as JSON types, in alphabetical order; a ``dataset.yaml`` by its content."""
        values = self.model_dump(mode="json", include=set(self.key_fields()))
        if isinstance(values.get("dataset"), str):
            values["dataset"] = dataset_identity(values["dataset"])
        return dict(sorted(values.items()))


def is_given(value: Any) -> bool:
    """Whether a value says anything: empty text, as of an empty form field, stands for "not given"."""
    return value not in ("", [""])


AnyFlags = TypeVar("AnyFlags", bound=Flags)


def _split(value: Any) -> Any:
    """Make ``"513,513"``, ``["6", "12"]``, ``["6,12"]`` or the lone ``4`` of a file a flat list; leave the rest."""
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)):
        return value
    parts: list[Any] = []
    for item in value:
        parts.extend(piece.strip() for piece in item.split(",")) if isinstance(item, str) else parts.append(item)
    return "" if parts in ([""], []) else parts


def validate(config_class: type[AnyFlags], values: Mapping[str, Any], *, only_known: bool = False) -> AnyFlags:
    """Build a configuration, turning pydantic's report into one sentence per bad field.

    Args:
        config_class: the model.
        values: field name -> value or text.
        only_known: pass over names that are not fields of this model.

    Raises:
        ConfigError: naming each field, the value given and what is allowed.
    """
    if only_known:
        values = {name: value for name, value in values.items() if name in config_class.model_fields}
    try:
        return config_class.model_validate(dict(values))
    except ValidationError as error:
        raise ConfigError("; ".join(_sentence(item) for item in error.errors())) from None


def _sentence(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"] if not isinstance(part, int))
    message = item["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if item["type"] == "missing" and where and isinstance(item["loc"][-1], int):
        return f"--{where}={item['input']}: too few values, separate them by commas"
    if item["type"] == "missing":
        return f"--{where} is required"
    if not where:
        return message
    return f"--{where}={item['input']}: {message}"
