"""The command line of a stage, derived from its configuration model, in the original's flag syntax.

absl parses (``--name=value``, ``--name value``, ``--noname``, repeated flags, ``--flagfile``), as it did for the
original; pydantic converts and checks. Only what was given is returned: defaults belong to ``resolve``.
"""

import difflib
import textwrap
from pathlib import Path
from typing import Any

import yaml
from absl import flags

from deeplab.config.base import Flags, alias_of, is_boolean, is_repeated, is_sequence
from deeplab.errors import ConfigError

# absl's own logging flags, common on original command lines. Log lines always go to stderr here.
_LOGGING_FLAGS = ("logtostderr", "alsologtostderr", "showprefixforinfo")
_LOGGING_VALUES = ("verbosity", "v", "stderrthreshold", "log_dir")


def parse(config_class: type[Flags], arguments: list[str]) -> dict[str, Any]:
    """The values given on a command line, over those of its ``--config`` file.

    Args:
        config_class: the stage's configuration model.
        arguments: words after the stage's name.

    Raises:
        ConfigError: for an unknown flag (with the nearest right one), a stray word, or an unreadable file.
    """
    values = _flag_values(config_class)
    try:
        rest = values(["deeplab", *arguments])[1:]
    except flags.UnrecognizedFlagError as error:
        raise ConfigError(_unknown(error.flagname, list(values))) from None
    except flags.Error as error:
        raise ConfigError(str(error)) from None
    if rest:
        raise ConfigError(f"unexpected {rest[0]!r}: every value belongs to a flag, written --flag=value")
    given = _read_file(config_class, values["config"].value)
    for name, info in config_class.model_fields.items():
        if any(values[spelling].present for spelling in (name, alias_of(info)) if spelling):
            given[name] = values[name].value
    return given


def _flag_values(config_class: type[Flags]) -> flags.FlagValues:
    values = flags.FlagValues()
    for name, info in config_class.model_fields.items():
        text = info.description or ""
        if is_boolean(info):
            flags.DEFINE_boolean(name, None, text, flag_values=values)
        elif is_repeated(info):
            flags.DEFINE_multi_string(name, None, text, flag_values=values)
        else:
            flags.DEFINE_string(name, None, text, flag_values=values)
        if alias := alias_of(info):
            flags.DEFINE_alias(alias, name, flag_values=values)
    flags.DEFINE_string("config", None, "YAML file with flags", flag_values=values)
    for name in _LOGGING_FLAGS:
        flags.DEFINE_boolean(name, False, "accepted; the log always goes to stderr", flag_values=values)
    for name in _LOGGING_VALUES:
        flags.DEFINE_string(name, None, "accepted; without effect", flag_values=values)
    return values


def _unknown(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean --{near[0]}?" if near else "; --help lists the flags"
    return f"unknown flag --{name}{hint}"


def _read_file(config_class: type[Flags], path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"--config={path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise ConfigError(f"--config={path}: expected lines of the form flag: value")
    unknown = sorted(set(content) - set(config_class.model_fields))
    if unknown:
        raise ConfigError(f"--config={path}: {unknown[0]!r} is no flag of this stage; --help lists them")
    return content


def help_text(stage: str, config_class: type[Flags]) -> str:
    """The flags of a stage with type, default and meaning, for a terminal of 100 columns."""
    summary = (config_class.__doc__ or "").strip().splitlines()[0]
    lines = [f"deeplab {stage}: {summary}", ""]
    for name, info in config_class.model_fields.items():
        if info.is_required():
            default = "required"
        elif info.default is None:
            default = "unset"
        elif is_sequence(info):
            default = ",".join(str(item) for item in info.default)
        else:
            default = str(info.default)
        suffix = " (repeat the flag for each value)" if is_repeated(info) else ""
        spellings = ", ".join(f"--{spelling}" for spelling in (name, alias_of(info)) if spelling)
        lines.append(f"  {spellings}  [{default}]")
        lines.extend(
            textwrap.wrap(f"{info.description}{suffix}", 92, initial_indent="      ", subsequent_indent="      ")
        )
    lines.append("  --config  [unset]")
    lines.append("      YAML file of flags (name: value); a flag on the command line wins.")
    lines.append("")
    lines.append("  --FLAG=none takes back what --config or model.json says, where unset is a value of the flag.")
    return "\n".join(lines)
