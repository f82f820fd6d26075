"""A flow's command line, derived from its parameter model: ``--preset=demo --train.train_crop_size=129,129``."""

import argparse
import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, create_model
from pydantic_settings import BaseSettings, CliSettingsSource, SettingsConfigDict
from pydantic_settings.exceptions import SettingsError

from deeplab.config import Flags, validate
from deeplab.errors import ConfigError

AnyModel = TypeVar("AnyModel", bound=Flags)


def parse(model: type[AnyModel], program: str, arguments: Sequence[str]) -> AnyModel:
    """The parameters given on a command line, over those of its ``--config`` file.

    Args:
        model: the flow's parameters.
        program: how the flow is started, for ``--help``.
        arguments: the words after it.

    Raises:
        ConfigError: for a flag that does not exist (with the nearest that does), a bad value or an unreadable file.
        SystemExit: after ``--help``.
    """
    open_values, words = _take_open(model, arguments)
    flags = merge(_read_flags(model, program, words), open_values)
    file = flags.pop("config", None)
    given = merge(_read_file(model, file), flags) if file else flags
    return validate(model, given)


def merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two nested sets of values; where both have one, that of ``above``."""
    result = dict(below)
    for name, value in above.items():
        before = result.get(name)
        both = isinstance(value, Mapping) and isinstance(before, Mapping)
        result[name] = merge(before, value) if both else value  # type: ignore[arg-type]
    return result


def _open_fields(model: type[BaseModel]) -> dict[str, int]:
    """Fields whose flags the model does not name, ``--inputs.NODE.INPUT=…``, and how many names follow the field's."""
    return {name: depth for name, info in model.model_fields.items() if (depth := _depth(info.annotation))}


def _depth(kind: Any) -> int:
    return 1 + _depth(get_args(kind)[1]) if get_origin(kind) is dict else 0


def _take_open(model: type[BaseModel], arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
    """The values of open fields, and the other words. A flag that comes again adds a value."""
    fields = _open_fields(model)
    values: dict[str, Any] = {}
    others: list[str] = []
    for word in arguments:
        flag, equals, value = word.partition("=")
        field, _, rest = flag.removeprefix("--").partition(".")
        if not rest or field not in fields:
            others.append(word)
            continue
        names = rest.split(".", fields[field] - 1)
        if not equals or len(names) != fields[field] or not all(names):
            raise ConfigError(f"{flag}: expected --{field}{'.NAME' * fields[field]}=VALUE")
        _add(values.setdefault(field, {}), names, value)
    return values, others


def _add(values: dict[str, Any], names: Sequence[str], value: str) -> None:
    for name in names[:-1]:
        values = values.setdefault(name, {})
    before = values.get(names[-1])
    values[names[-1]] = value if before is None else [*(before if isinstance(before, list) else [before]), value]


def flag_names(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every flag of a model: ``preset``, ``train.train_crop_size``."""
    for name, info in model.model_fields.items():
        kind = info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from flag_names(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _read_flags(model: type[BaseModel], program: str, arguments: Sequence[str]) -> dict[str, Any]:
    try:
        source = CliSettingsSource[Any](
            _settings(model),
            cli_prog_name=program,
            cli_parse_args=list(arguments),
            cli_exit_on_error=False,
            cli_hide_none_type=True,
            cli_avoid_json=True,
            cli_use_class_docs_for_groups=True,
            formatter_class=_formatter(program, model),
        )
        return source()
    except SettingsError as error:
        raise ConfigError(_reason(str(error), ["config", *flag_names(model)])) from None


def _settings(model: type[BaseModel]) -> type[BaseSettings]:
    """The model's fields as command-line settings; nothing is read from the environment or a file here."""
    fields: dict[str, Any] = {name: (info.annotation, info) for name, info in model.model_fields.items()}
    fields["config"] = (str | None, Field(None, description="YAML file with these parameters; a flag wins."))
    settings: type[BaseSettings] = create_model("CommandLine", __base__=_Settings, __doc__=model.__doc__, **fields)
    return settings


class _Settings(BaseSettings):
    model_config = SettingsConfigDict(case_sensitive=True, extra="forbid")


def _formatter(program: str, model: type[BaseModel]) -> type[argparse.HelpFormatter]:
    preset = " [--preset=NAME]" if "preset" in model.model_fields else ""
    fields = _open_fields(model)
    values = [f"--{name}{'.NAME' * depth}=VALUE" for name, depth in fields.items()] or ["--SECTION.FLAG=VALUE"]

    class Formatter(argparse.RawDescriptionHelpFormatter):
        """One line of usage instead of every flag, and no "default: None" behind every one."""

        def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
            text = f"{program}{preset} [--config=FILE] [{'] ['.join(f'{value} ...' for value in values)}]"
            super().add_usage(text, actions, groups, prefix)

        def _get_help_string(self, action: argparse.Action) -> str | None:
            return (action.help or "").replace("(default: None)", "").replace("(default factory: ", "(")

    return Formatter


def _reason(message: str, known: list[str]) -> str:
    message = message.removeprefix("error parsing CLI: ")
    unknown = re.match(r"unrecognized arguments: (\S+)", message)
    if unknown is None:
        return " ".join(message.split())
    word = unknown[1]
    if not word.startswith("-"):
        return f"unexpected {word!r}: every value belongs to a flag, written --flag=value"
    name = word.lstrip("-").partition("=")[0]
    near = nearest(name, known)
    return f"unknown flag --{name}; " + (f"did you mean --{near}?" if near else "--help lists the flags")


def nearest(name: str, known: Sequence[str]) -> str | None:
    """The known flag that was probably meant: a near spelling, or the right name without its section."""
    last = name.rpartition(".")[2]
    owned = [flag for flag in known if flag.rpartition(".")[2] == last]
    return next(iter(owned or difflib.get_close_matches(name, known, n=1) or _same_ending(last, known)), None)


def _same_ending(last: str, known: Sequence[str]) -> list[str]:
    endings = {flag.rpartition(".")[2]: flag for flag in reversed(known)}
    return [endings[found] for found in difflib.get_close_matches(last, list(endings), n=1)]


def _read_file(model: type[BaseModel], path: str) -> dict[str, Any]:
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config={path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--config={path}: expected lines of the form name: value, in sections like train:")
    known, fields = list(flag_names(model)), _open_fields(model)
    for name in _names(content):
        if name.partition(".")[0] in fields:
            continue
        if name not in known and not any(flag.startswith(f"{name}.") for flag in known):
            near = nearest(name, known)
            raise ConfigError(
                f"--config={path}: unknown {name}; " + (f"did you mean {near}?" if near else "see --help")
            )
    return content


def _names(content: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in content.items():
        if isinstance(value, Mapping):
            yield from _names(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
