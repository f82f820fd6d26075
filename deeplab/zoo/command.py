"""``deeplab zoo list | show NAME | fetch NAME``."""

import difflib
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from deeplab.config import Flags, validate
from deeplab.config.base import flag
from deeplab.config.command_line import help_text, parse
from deeplab.errors import ConfigError
from deeplab.zoo.catalogue import Published, Score, read_catalogue
from deeplab.zoo.fetch import MIRROR_VARIABLE, ZooFetchConfig, fetch
from deeplab.zoo.recipes import Recipe, bare_flags, describe_score, recipes

_USAGE = f"""deeplab zoo: the checkpoints that the original's authors published

  deeplab zoo list [--dataset=NAME] [--json]      all of them, with their scores
  deeplab zoo show NAME [--json]                  one: its flags, its scores, what to type
  deeplab zoo fetch NAME --output_dir=FOLDER      download, check and unpack it; tells the checkpoint's path
      [--mirror=URL or folder] [--sha256=DIGEST]  the mirror can also stand in {MIRROR_VARIABLE}

NAME is one of the list, or the name of the archive. `deeplab zoo VERB --help` lists the flags."""


class ZooListConfig(Flags):
    """List the published checkpoints (--json for programs)."""

    dataset: str | None = flag(None, "Only those for this data set.", key=False)


class ZooShowConfig(Flags):
    """Show a published checkpoint (--json for programs)."""


def run(words: list[str]) -> int:
    """Run ``deeplab zoo`` on the words after it; returns the exit status.

    Raises:
        DeepLabError: as the verb does, or for a command line that is wrong.
    """
    help_wanted = bool({"-h", "--help"} & set(words))
    if not words or words[0] == "help" or (help_wanted and words[0] not in _VERBS):
        print(_USAGE)
        return 0 if words else 2
    verb, rest = words[0], words[1:]
    if verb not in _VERBS:
        near = difflib.get_close_matches(verb, _VERBS, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"unknown verb {verb!r}, one of {', '.join(_VERBS)}{hint}")
    if help_wanted:
        print(help_text(f"zoo {verb}", _VERBS[verb][0]))
        return 0
    print(_VERBS[verb][1](rest))
    return 0


def _list(words: Sequence[str]) -> str:
    words, as_json = _without_json(words)
    config = validate(ZooListConfig, parse(ZooListConfig, words))
    found = read_catalogue().of_dataset(config.dataset)
    return _json([_public(entry) for entry in found]) if as_json else _table(found)


def _show(words: Sequence[str]) -> str:
    words, as_json = _without_json(words)
    name, flags = _take_name("show", words)
    parse(ZooShowConfig, flags)
    published = read_catalogue().find(name)
    if not as_json:
        return _page(published)
    return _json({**_public(published), "commands": [recipe._asdict() for recipe in recipes(published)]})


def _fetch(words: Sequence[str]) -> str:
    name, flags = _take_name("fetch", words)
    catalogue = read_catalogue()
    published = catalogue.find(name)
    config = validate(ZooFetchConfig, parse(ZooFetchConfig, flags))
    return str(fetch(published, config, catalogue.base_url))


_VERBS: dict[str, tuple[type[Flags], Callable[[Sequence[str]], str]]] = {
    "list": (ZooListConfig, _list),
    "show": (ZooShowConfig, _show),
    "fetch": (ZooFetchConfig, _fetch),
}


def _without_json(words: Sequence[str]) -> tuple[list[str], bool]:
    return [word for word in words if word != "--json"], "--json" in words


def _take_name(verb: str, words: Sequence[str]) -> tuple[str, list[str]]:
    """The one word that is neither a flag nor, after ``--flag`` without ``=``, a flag's value; and the others."""
    for number, word in enumerate(words):
        before = words[number - 1] if number else ""
        if not word.startswith("-") and (not before.startswith("-") or "=" in before):
            return word, [*words[:number], *words[number + 1 :]]
    raise ConfigError(f"name the checkpoint: deeplab zoo {verb} NAME; `deeplab zoo list` names them all")


def _table(entries: Iterable[Published]) -> str:
    head = ("name", "data set", "network", "MB", "mIoU %")
    rows = [head, *(_row(entry) for entry in entries)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    legend = "mIoU: split @ output stride, * averaged over several scales and mirrored; - for a backbone alone"
    return "\n".join([*lines, "", legend])


def _row(entry: Published) -> tuple[str, ...]:
    network = entry.network.model_variant
    if entry.network.depth_multiplier != 1:
        network += f" x {entry.network.depth_multiplier:g}"
    size = "-" if entry.megabytes is None else f"{entry.megabytes:g}"
    scores = ", ".join(_short(score) for score in entry.scores) or "-"
    return entry.id, entry.dataset, network, size, scores


def _short(score: Score) -> str:
    return f"{score.miou:.2f} {score.split}@{score.output_stride}{'*' if score.flips else ''}"


def _page(published: Published) -> str:
    size = "" if published.megabytes is None else f" (about {published.megabytes:g} MB)"
    classes = "" if published.num_classes is None else f", {published.num_classes} classes"
    crop = "" if published.crop_size is None else ", evaluated at {},{} pixels".format(*published.crop_size)
    lines = [
        published.id,
        f"  archive   {_url(published)}{size}",
        f"  data set  {published.dataset}{classes}{crop}",
        f"  holds     {_CONTENT[published.kind]}",
    ]
    lines += [f"  score     {describe_score(score)}" for score in published.scores]
    lines += ["", "What to type (the folders are suggestions):", *_block(recipes(published))]
    if published.kind == "segmentation":
        lines += ["", "All stages read the model.json that zoo fetch writes. Beside a copy without one they need:"]
        lines += _block(bare_flags(published))
    return "\n".join(lines)


def _block(entries: Iterable[Recipe]) -> list[str]:
    return [line for purpose, words in entries for line in ("", f"# {purpose}", words)]


_CONTENT = {
    "segmentation": "a segmentation model: a checkpoint and a frozen graph",
    "backbone": "a backbone's weights, to start a training from",
}


def _url(published: Published) -> str:
    return f"{read_catalogue().base_url}{published.file_name}"


def _public(published: Published) -> dict[str, Any]:
    return {**published.model_dump(mode="json"), "url": _url(published)}


def _json(content: Any) -> str:
    return json.dumps(content, indent=1)
