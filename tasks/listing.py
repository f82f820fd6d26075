"""How a person, or a program, is shown what is in a store."""

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from tasks.call import flag_text
from tasks.inventory import Inventory, Item
from tasks.result import shown

# Parameters that a person knows a result by, shown even where all entries agree.
_FIRST = ("dataset", "model_variant", "training_number_of_steps")
# Most parameters and inputs in a line of the table, and most characters of a value.
_MOST_PARAMETERS, _MOST_INPUTS, _LONGEST = 6, 2, 24
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


def table(inventory: Inventory, items: Sequence[Item]) -> Iterator[str]:
    """A line for each entry, with what tells it from the others of its stage."""
    telling = {stage: _Telling.of(inventory, stage) for stage in {item.stage for item in items}}
    head = ("stage", "key", "state", "size", "used", "")
    rows = [head, *(_row(inventory, item, telling[item.stage]) for item in items)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head) - 1)]
    for row in rows:
        stage, key, state, size, used = (cell.ljust(width) for cell, width in zip(row, widths, strict=False))
        yield f"{stage}  {key}  {state}  {size.strip():>{widths[3]}}  {used.strip():>{widths[4]}}  {row[5]}".rstrip()


@dataclass(frozen=True)
class _Telling:
    """What tells the entries of a stage apart: whether the code does, which parameters, which inputs."""

    code: bool
    parameters: Sequence[str]
    inputs: Sequence[str]

    @classmethod
    def of(cls, inventory: Inventory, stage: str) -> "_Telling":
        identities = [item.identity for item in inventory.items if item.stage == stage]
        parameters = [identity.parameters for identity in identities]
        first = (name for name in _FIRST if any(name in values for values in parameters))
        return cls(
            len({identity.code_version for identity in identities}) > 1,
            list(dict.fromkeys([*first, *_differing(parameters)])),
            _differing([identity.inputs for identity in identities]),
        )


def _differing(all_values: Sequence[Mapping[str, Any]]) -> list[str]:
    names = dict.fromkeys(name for values in all_values for name in values)
    return [name for name in names if any(values.get(name) != all_values[0].get(name) for values in all_values)]


def _row(inventory: Inventory, item: Item, telling: _Telling) -> tuple[str, ...]:
    told = [*_parameters(item, telling), *_inputs(inventory, item, telling)]
    remark = item.reason or (_elsewhere(item) if item.state == "elsewhere" else "")
    text = "  ".join([*told, *([f"({remark})"] if remark else [])])
    return item.stage, inventory.short(item), _state(item), size_text(item.size), age_text(item.used), text


def _state(item: Item) -> str:
    return "running" if item.running else item.state


def _elsewhere(item: Item) -> str:
    return item.execution.label if item.execution else "mirror"


def _parameters(item: Item, telling: _Telling) -> Iterator[str]:
    if telling.code:
        yield f"code={item.identity.code_version}"
    own = item.identity.parameters
    names = [name for name in telling.parameters if name in own and not isinstance(own[name], dict)]
    for name in names[:_MOST_PARAMETERS]:
        text = flag_text(own[name])
        yield f"{name}={text[:_LONGEST]}{'…' if len(text) > _LONGEST else ''}"
    if len(names) > _MOST_PARAMETERS:
        yield f"and {len(names) - _MOST_PARAMETERS} more"


def _inputs(inventory: Inventory, item: Item, telling: _Telling) -> Iterator[str]:
    sources = inventory.sources(item)
    for flag in [flag for flag in telling.inputs if flag in sources][:_MOST_INPUTS]:
        source = sources[flag]
        yield f"{flag}={inventory.short(source) if source else item.identity.inputs[flag][:6]}"


def page(inventory: Inventory, item: Item) -> Iterator[str]:
    """All that is known of one entry."""
    yield f"{item.stage} {item.key}"
    yield from _lines("", _facts(item))
    made_of = {flag: _named(inventory, source, item, flag) for flag, source in inventory.sources(item).items()}
    yield from _lines("made of", made_of)
    yield from _lines("used by", {f"{other.stage} {inventory.short(other)}": "" for other in inventory.used_by(item)})
    yield from _lines("parameters", {name: flag_text(value) for name, value in item.identity.parameters.items()})
    outputs = item.manifest.outputs if item.manifest else ()
    yield from _lines("files", {output.path: f"{size_text(output.size)} {output.kind}" for output in outputs})


def _facts(item: Item) -> dict[str, str]:
    ran = item.manifest.ran if item.manifest else {}
    facts = {
        "state": f"{_state(item)}{f': {item.reason}' if item.reason else ''}",
        "here": f"{shown(item.entry.output)} ({size_text(item.size)})",
        "log": shown(item.entry.log) if item.entry.log.exists() else "",
        "used": f"{_date(item.used)} ({age_text(item.used)} ago)",
        "code": f"version {item.identity.code_version} of the stage"
        + (f", deeplab-prefect {item.manifest.version}" if item.manifest else ""),
        "ran": f"{ran['seconds']:.1f} s on {ran.get('host', 'an unknown machine')}" if "seconds" in ran else "",
        "digest": item.manifest.digest if item.manifest else "",
        "execution": f"{item.execution.label} {item.execution.page or ''}".rstrip() if item.execution else "",
        "mirror": f"{size_text(item.mirrored.size)}" if item.mirrored else "",
    }
    return {name: text for name, text in facts.items() if text}


def _named(inventory: Inventory, source: Item | None, item: Item, flag: str) -> str:
    if source is None:
        digest = item.identity.inputs[flag].rpartition(" ")[2]
        return f"{digest[:12]}…: of no entry, but a person's file or removed since"
    return f"{source.stage} {inventory.short(source)} ({_state(source)})"


def _lines(title: str, values: dict[str, str]) -> Iterator[str]:
    if values and title:
        yield f"  {title}"
    width, indent = max(map(len, values), default=0), " " * (4 if title else 2)
    for name, value in values.items():
        yield f"{indent}{name:{width}}  {value}".rstrip()


def record(inventory: Inventory, item: Item, *, whole: bool = False) -> dict[str, Any]:
    """An entry for programs.

    Args:
        inventory: which it is part of.
        item: the entry.
        whole: its files and where it ran, too.
    """
    sources = inventory.sources(item)
    told: dict[str, Any] = {
        "stage": item.stage,
        "key": item.key,
        "state": item.state,
        "reason": item.reason,
        "running": item.running,
        "bytes": item.size,
        "used": _date(item.used),
        "here": str(item.entry.output),
        "log": str(item.entry.log),
        "execution": item.execution.page or item.execution.label if item.execution else None,
        "mirror_bytes": item.mirrored.size if item.mirrored else None,
        "code_version": item.identity.code_version,
        "digest": item.manifest.digest if item.manifest else None,
        "parameters": item.identity.parameters,
        "inputs": item.identity.inputs,
        "made_of": {flag: source.key if source else None for flag, source in sources.items()},
    }
    if whole:
        told["used_by"] = [other.key for other in inventory.used_by(item)]
        told["manifest"] = item.manifest.model_dump(mode="json") if item.manifest else None
    return told


def size_text(size: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def age_text(moment: float) -> str:
    """How long ago something was, as a person says it."""
    seconds = max(0.0, time.time() - moment)
    for limit, length, unit in ((2 * _HOUR, _MINUTE, "min"), (2 * _DAY, _HOUR, "h")):
        if seconds < limit:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / _DAY:.0f} d"


def _date(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def total(what: str, sizes: Collection[int]) -> str:
    """How many things there are, and how much they are together; ``what`` is one of them."""
    plural = f"{what[:-1]}ies" if what.endswith("y") else f"{what}s"
    return f"{len(sizes)} {what if len(sizes) == 1 else plural}, {size_text(sum(sizes))}"
