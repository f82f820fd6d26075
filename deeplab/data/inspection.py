"""``deeplab inspect``: what a data set holds, before anything is made of it.

Nothing is written but the sheet, and bad files are listed instead of ending the look.
"""

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from deeplab.config import InspectConfig, resolve
from deeplab.config.command_line import parse
from deeplab.data.datasets import Dataset, get_dataset
from deeplab.data.images import check_pair, check_photo, read_labels
from deeplab.data.pairs import Found, Pair, find_pairs
from deeplab.data.sample_sheet import SampleSheet
from deeplab.data.sources import Source, open_source
from deeplab.errors import ConfigError, DataError
from deeplab.stage import Progress

# Training crops of the original's recipes, which suit photos of about this size: multiples of the stride plus one.
_USUAL_CROP, _STRIDE = 513, 16
# How many odd files the table names.
_SHOWN = 10
_FLOAT = 4


@dataclass(frozen=True)
class _Look:
    """What one pair shows: photo size in pixels, pixels of each mask label (int64 [256]), and what is wrong or odd."""

    height: int = 0
    width: int = 0
    pixels: npt.NDArray[np.int64] | None = None
    error: str | None = None
    remark: str | None = None


@dataclass(frozen=True)
class SplitInspection:
    """One split.

    Attributes:
        pairs: pairs in it.
        looked_at: good pairs that were looked at.
        smallest, median, largest: height and width of photos, pixels, each side for itself.
        ignored: share of pixels with the ignore label, 0..1.
        pixels: pixels of each class.
        photos: photos in which each class is.
        errors: why pairs are bad.
        remarks: what is odd about good ones.
    """

    pairs: int
    looked_at: int
    smallest: tuple[int, int]
    median: tuple[int, int]
    largest: tuple[int, int]
    ignored: float
    pixels: tuple[int, ...]
    photos: tuple[int, ...]
    errors: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Inspection:
    """A data set.

    Attributes:
        dataset, source: what was looked at.
        classes: names, in the order of the labels.
        ignore_label: label of pixels that do not count.
        splits: each split.
        lonely: photos without mask.
        left_out: masks without photo.
        train_crop_size, eval_crop_size: suggestions, height and width, pixels.
        label_weights: of each class, from the first split; None for a class that is not in it or is ignored.
        batch_bytes: memory of a training batch at the suggested crop, without the network's own activations.
    """

    dataset: str
    source: str
    classes: tuple[str, ...]
    ignore_label: int
    splits: Mapping[str, SplitInspection]
    lonely: tuple[str, ...]
    left_out: tuple[str, ...]
    train_crop_size: tuple[int, int]
    eval_crop_size: tuple[int, int]
    label_weights: tuple[float | None, ...]
    batch_bytes: Mapping[str, int]


def run(words: list[str]) -> int:
    """Print what a data set holds; ``--json`` among the words gives JSON. Returns the exit status."""
    config = resolve(InspectConfig, parse(InspectConfig, [word for word in words if word != "--json"]))
    dataset = get_dataset(config.dataset)
    place = config.source or dataset.layout.source
    if place is None:
        raise ConfigError(f"--source is required for --dataset={dataset.name}: its archive, or the folder of its files")
    with open_source(Path(place)) as source:
        found = find_pairs(source, dataset, config.splits)
        inspection = inspect(source, dataset, found, config)
        if config.sheet:
            draw_sheet(source, dataset, found, config.sheet_images).write(Path(config.sheet))
    print(json.dumps(asdict(inspection)) if "--json" in words else "\n".join(_table(inspection, config)))
    return 0


def inspect(source: Source, dataset: Dataset, found: Found, config: InspectConfig) -> Inspection:
    """Look at the pairs of a source.

    Raises:
        DataError: if no pair at all is good.
    """
    chosen = {split: _evenly(pairs, config.max_pairs) for split, pairs in found.splits.items()}
    progress = Progress(sum(map(len, chosen.values())), "pairs")
    splits = {}
    with ThreadPoolExecutor(config.num_threads) as pool:
        for split, pairs in chosen.items():
            looks = []
            for look in pool.map(lambda pair: _look(source, pair), pairs):
                looks.append(look)
                progress.advance()
            splits[split] = _summarise(looks, len(found.splits[split]), dataset)
    progress.close()
    good = [split for split in splits.values() if split.looked_at]
    if not good:
        errors = [error for split in splits.values() for error in split.errors]
        raise DataError(f"{source.shown}: no pair is good; the first: {[*errors, *found.lonely][0]}")
    train, evaluated = _crops(good)
    return Inspection(
        dataset=dataset.name,
        source=source.shown,
        classes=dataset.class_names,
        ignore_label=dataset.ignore_label,
        splits=splits,
        lonely=found.lonely,
        left_out=found.left_out,
        train_crop_size=train,
        eval_crop_size=evaluated,
        label_weights=_label_weights(good[0], dataset),
        batch_bytes=_batch_bytes(config.train_batch_size, train, dataset.num_classes),
    )


def draw_sheet(source: Source, dataset: Dataset, found: Found, count: int) -> SampleSheet:
    """A sheet of pairs from the first split, evenly chosen; bad ones are passed over."""
    sheet = SampleSheet(dataset)
    for pair in _evenly(next(iter(found.splits.values())), count):
        try:
            photo = source.read(pair.photo)
            check_photo(photo, pair.photo, decode=True)
            sheet.add(photo, read_labels(source.read(pair.mask), source.describe(pair.mask), pair.reading))
        except DataError:
            continue
    return sheet


def _evenly(pairs: Sequence[Pair], count: int | None) -> list[Pair]:
    if count is None or count >= len(pairs):
        return list(pairs)
    return [pairs[index * len(pairs) // count] for index in range(count)]


def _look(source: Source, pair: Pair) -> _Look:
    photo_name, mask_name = source.describe(pair.photo), source.describe(pair.mask)
    try:
        photo = check_photo(source.read(pair.photo), photo_name)
        encoded = source.read(pair.mask)
        check_pair(photo, encoded, photo_name, mask_name)
        pixels = np.bincount(read_labels(encoded, mask_name, pair.reading).ravel(), minlength=256)
    except DataError as error:
        return _Look(error=str(error))
    remark = f"{photo_name}: {photo.remark}" if photo.remark else None
    return _Look(photo.height, photo.width, pixels, remark=remark)


def _summarise(looks: Sequence[_Look], pairs: int, dataset: Dataset) -> SplitInspection:
    good = [look for look in looks if look.pixels is not None]
    counts = np.stack([look.pixels for look in good if look.pixels is not None] or [np.zeros(256, np.int64)])
    total = counts.sum(0)
    sides = [sorted(look.height for look in good) or [0], sorted(look.width for look in good) or [0]]
    return SplitInspection(
        pairs=pairs,
        looked_at=len(good),
        smallest=(sides[0][0], sides[1][0]),
        median=(statistics.median_low(sides[0]), statistics.median_low(sides[1])),
        largest=(sides[0][-1], sides[1][-1]),
        ignored=float(total[dataset.ignore_label] / max(1, total.sum())),
        pixels=tuple(total[: dataset.num_classes].tolist()),
        photos=tuple((counts > 0).sum(0)[: dataset.num_classes].tolist()),
        errors=tuple(look.error for look in looks if look.error),
        remarks=tuple(look.remark for look in looks if look.remark),
    )


def _crops(splits: Iterable[SplitInspection]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Training: a usual photo, but no more than the original's recipes take. Evaluation: the largest photo."""
    splits = list(splits)
    largest = [max(split.largest[side] for split in splits) for side in (0, 1)]
    usual = [min(_aligned(split_side), _USUAL_CROP) for split_side in splits[0].median]
    return (usual[0], usual[1]), (_aligned(largest[0]), _aligned(largest[1]))


def _aligned(side: int) -> int:
    """The next multiple of the stride, plus one."""
    return -(-(side - 1) // _STRIDE) * _STRIDE + 1


def _label_weights(split: SplitInspection, dataset: Dataset) -> tuple[float | None, ...]:
    """Median frequency balancing (Eigen and Fergus, 2015).

    A class's frequency is its share of the counted pixels; its weight is the median frequency over its own.
    """
    counted = [0 if number == dataset.ignore_label else pixels for number, pixels in enumerate(split.pixels)]
    there = [pixels for pixels in counted if pixels]
    median = statistics.median(there) if there else 0
    return tuple(round(median / pixels, 4) if pixels else None for pixels in counted)


def _batch_bytes(batch: int, crop: tuple[int, int], classes: int) -> dict[str, int]:
    """Memory of photos and labels, and of the logits at full resolution with their softmax and gradient."""
    pixels = batch * crop[0] * crop[1]
    return {"input": pixels * (3 + 1) * _FLOAT, "logits": 3 * pixels * classes * _FLOAT}


def _table(found: Inspection, config: InspectConfig) -> list[str]:
    lines = [f"{found.dataset}: {len(found.classes)} classes, ignore label {found.ignore_label}; {found.source}", ""]
    row = "{:<16} {:>8} {:>12} {:>12} {:>12} {:>9}"
    lines.append(row.format("split", "pairs", "smallest", "median", "largest", "ignored"))
    for name, split in found.splits.items():
        sizes = [f"{height}x{width}" for height, width in (split.smallest, split.median, split.largest)]
        lines.append(row.format(name, split.pairs, *sizes, f"{100 * split.ignored:.2f} %"))
    lines += ["(height x width, each side for itself)", "", *_class_table(found), ""]
    odd = [text for split in found.splits.values() for text in (*split.errors, *split.remarks)]
    odd += [*found.lonely, *(f"{name} has no photo" for name in found.left_out)]
    lines.append(f"odd files: {len(odd) or 'none'}")
    lines += [f"  {text}" for text in odd[:_SHOWN]]
    lines += [f"  and {len(odd) - _SHOWN} more (--json lists all)"] if len(odd) > _SHOWN else []
    crops = [",".join(map(str, crop)) for crop in (found.train_crop_size, found.eval_crop_size)]
    memory = {name: f"{size / 2**20:,.0f} MiB" for name, size in found.batch_bytes.items()}
    lines += [
        "",
        f"suggested  --train_crop_size={crops[0]}  --eval_crop_size={crops[1]}",
        f"a batch of {config.train_batch_size} takes {memory['input']}, its logits at full resolution "
        f"{memory['logits']}; the network's activations come on top",
    ]
    return lines


def _class_table(found: Inspection) -> list[str]:
    """Share of the counted pixels, photos and weight of each class, from the first split that has good pairs."""
    name, split = next((name, split) for name, split in found.splits.items() if split.looked_at)
    width = max(len("class"), *map(len, found.classes))
    row = f"{{:>5}}  {{:<{width}}} {{:>9}} {{:>8}} {{:>9}}"
    counted = sum(pixels for number, pixels in enumerate(split.pixels) if number != found.ignore_label)
    lines = [f"classes in {name}", row.format("label", "class", "share", "photos", "weight")]
    for number, text in enumerate(found.classes):
        weight = found.label_weights[number]
        share = "ignored" if number == found.ignore_label else f"{100 * split.pixels[number] / max(1, counted):.3f} %"
        lines.append(row.format(number, text, share, split.photos[number], "-" if weight is None else f"{weight:g}"))
    return lines
