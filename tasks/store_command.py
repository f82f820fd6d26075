"""``deeplab-store ls | verify | gc``: what is in a store, whether it is whole, and what may go."""

import difflib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from deeplab.config import Flags, validate
from deeplab.config.base import alias_of, flag, is_boolean
from deeplab.config.command_line import parse
from deeplab.errors import ConfigError, DeepLabError, system_reason
from tasks.errors import EntryInUse
from tasks.inventory import STAGES, Inventory, Item, Leftover, take
from tasks.listing import page, record, size_text, table, total
from tasks.mirror import Mirrored
from tasks.places import DEFAULT_STORE, open_store
from tasks.removal import Removal, Rules, choose, remove, size_of
from tasks.result import shown
from tasks.sources import is_url
from tasks.verification import can_be_checked, check, outputs_here

_USAGE = f"""deeplab-store: what the stages made, and what of it is still needed

  deeplab-store ls [--stage=NAME] [--json]        every entry: state, size, when it was last used, what tells it apart
  deeplab-store ls KEY                            one: what it was made of, with what, its files, its log
  deeplab-store verify [KEY ...] [--stage=NAME]   read every file again and compare it with its SHA-256
  deeplab-store gc [--yes] [--stage=NAME]         remove what nobody needs; without --yes only say what would go
      --older_than=14       days: what is unfinished, broken or left over goes when it is older
      --unused_for=DAYS     finished entries go too when no run has used them for so long
      --keep_last=N         finished entries go too, but of each stage the N that were used last stay
      --mirror              remove from the remote place of a URL store, too
  deeplab-store gc KEY ... [--yes]                remove these, whatever their state

All take --store=FOLDER or URL [{DEFAULT_STORE}]. KEY is one, the beginning of one, or a path that ends in one."""


class _Common(Flags):
    store: str = flag(DEFAULT_STORE, "The store: a folder, or az://CONTAINER/FOLDER.", key=False)
    stage: str | None = flag(None, "Only entries of this stage.", key=False)


AnyConfig = TypeVar("AnyConfig", bound=_Common)


class ListConfig(_Common):
    """List the entries of a store."""

    as_json: bool = flag(False, "One JSON object a line.", key=False, alias="json")


class VerifyConfig(_Common):
    """Compare every file with its SHA-256."""


class CollectConfig(_Common):
    """Remove what nobody needs."""

    older_than: float = flag(14.0, "Days after which unfinished, broken and left over things go.", key=False, ge=0)
    unused_for: float | None = flag(None, "Days without use after which finished entries go.", key=False, ge=0)
    keep_last: int | None = flag(None, "Finished entries of a stage that stay.", key=False, ge=0)
    mirror: bool = flag(False, "Remove from the store's remote place, too.", key=False)
    yes: bool = flag(False, "Do it.", key=False)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0 done, 1 failed or something is broken, 2 a bad command line, 130 Ctrl-C.
    """
    try:
        return _main(list(sys.argv[1:] if arguments is None else arguments))
    except DeepLabError as error:
        print(f"deeplab-store: {error}", file=sys.stderr)
        return 2 if isinstance(error, ConfigError) else 1
    except BrokenPipeError:
        # Whoever read our output has seen enough (``| head``). Python would complain once more at its own end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except OSError as error:
        print(f"deeplab-store: {system_reason(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGINT


def _main(words: list[str]) -> int:
    if not words or {"-h", "--help", "help"} & set(words):
        print(_USAGE)
        return 0 if words else 2
    verb, rest = words[0], words[1:]
    if verb not in _VERBS:
        raise ConfigError(f"unknown verb {verb!r}; one of {', '.join(_VERBS)}")
    return _VERBS[verb](rest)


def _read(config_class: type[AnyConfig], words: Sequence[str]) -> tuple[AnyConfig, Inventory, list[Item]]:
    """The flags, what is in the store, and the entries that are named."""
    flags, keys = _divide(config_class, words)
    config = validate(config_class, parse(config_class, flags))
    if config.stage is not None and keys:
        raise ConfigError(f"--stage={config.stage} and {keys[0]}: name entries, or give a stage")
    inventory = take(*open_store(config.store, make=False))
    known = {*STAGES, *(item.stage for item in inventory.items)}
    if config.stage is not None and config.stage not in known:
        near = difflib.get_close_matches(config.stage, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"one of {', '.join(STAGES)}"
        raise ConfigError(f"--stage={config.stage}: there is no such stage; {hint}")
    return config, inventory, [inventory.find(key) for key in keys]


def _divide(config_class: type[Flags], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """The flags, with the values that follow them as words of their own, and the other words."""
    fields = config_class.model_fields
    booleans = ((name, alias_of(info)) for name, info in fields.items() if is_boolean(info))
    switches = {f"--{spelling}" for spellings in booleans for spelling in spellings}
    flags: list[str] = []
    others: list[str] = []
    for before, word in zip(["", *words], words, strict=False):
        value = before.startswith("--") and "=" not in before and before not in switches
        (flags if value or word.startswith("-") else others).append(word)
    return flags, others


def _of_stage(inventory: Inventory, stage: str | None) -> list[Item]:
    return [item for item in inventory.items if stage in (None, item.stage)]


def _ls(words: Sequence[str]) -> int:
    config, inventory, named = _read(ListConfig, words)
    items = named or _of_stage(inventory, config.stage)
    if config.as_json:
        lines = [json.dumps(record(inventory, item, whole=bool(named))) for item in items]
    elif named:
        lines = ["\n\n".join("\n".join(page(inventory, item)) for item in named)]
    else:
        lines = [*table(inventory, items), "", *_totals(inventory, items)]
    for line in lines:
        print(line)
    return 0


def _totals(inventory: Inventory, items: Sequence[Item]) -> Iterator[str]:
    yield total("entry", [item.size for item in items])
    there = [item.mirrored.size for item in items if item.mirrored]
    if there:
        yield f"{total('entry', there)} in the mirror"
    if inventory.leftovers:
        yield f"{total('leftover', [left.size for left in inventory.leftovers])}, for deeplab-store gc"
    for folder in inventory.unknown:
        yield f"{shown(folder)}: its note is missing or of another version, so nothing can be said about it"


def _verify(words: Sequence[str]) -> int:
    config, inventory, named = _read(VerifyConfig, words)
    items = named or _of_stage(inventory, config.stage)
    read = {item: sum(output.size for output in outputs_here(item)) for item in items if can_be_checked(item)}
    broken = 0
    with tqdm(total=sum(read.values()), unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for item in read:
            lines = list(check(item, bar.update))
            broken += bool(lines)
            for line in lines:
                bar.write(f"{item.stage} {inventory.short(item)}: {line}")
    print(f"{total('entry', read.values())} read: {f'{broken} broken' if broken else 'nothing is broken'}")
    if len(read) < len(items):
        print(f"{len(items) - len(read)} not looked at: unfinished, worked on just now, or only with an execution")
    return 1 if broken else 0


def _gc(words: Sequence[str]) -> int:
    config, inventory, named = _read(CollectConfig, words)
    chosen_by_rule = config.unused_for is not None or config.keep_last is not None
    if named and chosen_by_rule:
        raise ConfigError("name entries, or say by --unused_for and --keep_last which ones go")
    if config.mirror and not is_url(config.store):
        raise ConfigError(f"--mirror: the store {config.store} has no remote place; leave it out")
    rules = Rules(config.older_than, config.unused_for, config.keep_last, config.stage, config.mirror)
    needed = inventory.ancestors(item for item in inventory.items if item.running)
    for item in named:
        if item in needed:
            raise EntryInUse(f"{_title(inventory, item)} stays: what somebody works on now is made of it")
    removals = [_named(inventory, item) for item in named] or choose(inventory, rules, time.time())
    if config.yes:
        return _remove_all(inventory, removals, config.mirror, strict=bool(named))
    for removal in removals:
        print(f"{_title(inventory, removal.what)}  {size_text(size_of(removal, config.mirror))}  {removal.reason}")
    sizes = [size_of(removal, config.mirror) for removal in removals]
    print(f"{total('thing', sizes)} would go; --yes removes them" if sizes else "nothing to remove")
    if not named and not chosen_by_rule:
        print("finished entries stay; --unused_for=DAYS or --keep_last=N tells which of them go")
    return 0


def _named(inventory: Inventory, item: Item) -> Removal:
    count = len(inventory.used_by(item))
    return Removal(item, f"named; made of it: {count}" if count else "named")


def _remove_all(inventory: Inventory, removals: Sequence[Removal], mirror: bool, *, strict: bool) -> int:
    """Remove what can be; 1 if ``strict`` and something stays."""
    freed: list[int] = []
    for removal in removals:
        name = _title(inventory, removal.what)
        try:
            remove(removal, mirror=mirror)
        except EntryInUse as problem:
            print(f"{name}  stays: {problem}")
        else:
            freed.append(size_of(removal, mirror))
            print(f"{name}  {size_text(freed[-1])}  removed: {removal.reason}", flush=True)
    print(f"{total('thing', freed)} freed")
    return 1 if strict and len(freed) < len(removals) else 0


def _title(inventory: Inventory, what: Item | Leftover | Mirrored) -> str:
    if isinstance(what, Item):
        return f"{what.stage} {inventory.short(what)}"
    return f"{what.stage} {what.key[:6]}" if isinstance(what, Mirrored) else ", ".join(map(shown, what.paths[:1]))


_VERBS: dict[str, Callable[[Sequence[str]], int]] = {"ls": _ls, "verify": _verify, "gc": _gc}


if __name__ == "__main__":
    raise SystemExit(main())
