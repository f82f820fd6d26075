"""Stage ``convert``: photos and masks to TFRecord shards with the original's names and features.

Straight from the archive: reading and checking a pair costs less than unpacking it. Unlike the original's, the
records of a seed are always the same, ``image/filename`` holds no path of some machine, and ``image/format`` is what
the photo is.
"""

import logging
import random
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deeplab.config import ConvertConfig, resolve
from deeplab.data.datasets import Dataset, get_dataset
from deeplab.data.packing import pack
from deeplab.data.pairs import Found, Pair, find_pairs, listed
from deeplab.data.records_description import FILE_NAME, RecordsDescription, SplitRecords
from deeplab.data.shard_writer import Checks, Shard, ShardReport, ShardWriter, report_path
from deeplab.data.shards import ARCHIVE_NAME, shard_name
from deeplab.data.sources import Source, folder_flags, open_four_folders, open_source
from deeplab.errors import ConfigError, DataError
from deeplab.stage import OutputFolder, emit_metrics
from deeplab.stage.inputs import archive_digest, input_digest
from deeplab.stage.manifest import combined_digest, remembered_sha256
from deeplab.stage.versions import CODE_VERSIONS

# Where the original's four folder flags are understood.
_FOUR_FOLDERS = "images/training/*"

_log = logging.getLogger(__name__)


def run(given: Mapping[str, Any]) -> None:
    """Convert a data set; ``given`` are flags of ``ConvertConfig``.

    Raises:
        ConfigError: for a bad flag or description.
        DataError: for a missing or damaged source, photo or mask.
        OutputError: if the folder cannot be written or holds other work.
    """
    config = resolve(ConvertConfig, given)
    dataset = get_dataset(config.dataset)
    place = _place(config, dataset)
    with _opened(config, place) as source:
        found = _checked(find_pairs(source, dataset, config.splits), source, config)
        digests = _digests(config, place, source, found)
        with OutputFolder(config.output_dir, "convert", CODE_VERSIONS["convert"], config, digests) as folder:
            if folder.finished:
                _log.info("%s: already converted", folder.path)
                return
            _convert(config, dataset, source, found, folder)


def _place(config: ConvertConfig, dataset: Dataset) -> Path | None:
    """Where the data are; None: in the four folders of the original's flags."""
    place = config.source or dataset.layout.source
    if place is not None:
        return Path(place)
    first = next(iter(dataset.layout.splits.values()))
    if first.images[0].text != _FOUR_FOLDERS:
        raise ConfigError(f"--source is required for --dataset={dataset.name}: its archive, or the folder of its files")
    return None


@contextmanager
def _opened(config: ConvertConfig, place: Path | None) -> Iterator[Source]:
    if place is None:
        yield open_four_folders(config)
        return
    with open_source(place, besides=Path(config.output_dir)) as source:
        yield source


def _digests(config: ConvertConfig, place: Path | None, source: Source, found: Found) -> dict[str, str]:
    """Of what is read; whatever else lies in a folder, perhaps the records themselves, leaves them alone."""
    if place is None:
        return {name: input_digest(where) for name, where in folder_flags(config).items()}
    if source.folder is None:
        return {"source": archive_digest(place, source.place)}
    pairs = (pair for split in found.splits.values() for pair in split)
    names = {*found.lists, *(name for pair in pairs for name in (pair.photo, pair.mask))}
    return {"source": combined_digest({name: remembered_sha256(source.folder / name) for name in names})}


def _checked(found: Found, source: Source, config: ConvertConfig) -> Found:
    """Say what has no partner; photos without mask are an error unless bad pairs are skipped."""
    if found.left_out:
        _log.warning(
            "%s: %d masks without photo are left out: %s",
            source.shown,
            len(found.left_out),
            listed(found.left_out),
        )
    if found.lonely and config.on_error == "fail":
        raise DataError(
            f"{source.shown}: {len(found.lonely)} files without partner: {listed(found.lonely)}. Add the partners "
            "(masks have their photo's name and end in .png), remove the files, or pass --on_error=skip"
        )
    for sentence in found.lonely:
        _log.warning("left out: %s", sentence)
    return found


def _convert(config: ConvertConfig, dataset: Dataset, source: Source, found: Found, folder: OutputFolder) -> None:
    shards = _plan(found.splits, config, folder.path)
    archive, description = folder.path / ARCHIVE_NAME, folder.path / FILE_NAME
    _clear_partial(folder.path)
    writer = ShardWriter(
        source, Checks(config.validation, config.on_error == "skip"), sum(map(len, found.splits.values()))
    )
    try:
        reports = writer.write_all(shards, config.num_threads)
        splits = _by_split(shards, reports)
        _refuse_empty(splits, source)
        RecordsDescription.of(dataset, splits).write(description)
        digests = {shard.path: report.sha256 for shard, report in zip(shards, reports, strict=True)}
        if config.archive:
            digests[archive] = pack(digests, archive, first=description)
    except DataError:
        # The data will be mended, and then are others than these shards were made of.
        _clear(folder.path, shards)
        raise
    for split, records in splits.items():
        emit_metrics(split=split, pairs=records.pairs, shards=config.num_shards)
    notes = _notes(source, found, splits, reports)
    folder.finish([*digests, description], digests=digests, notes=notes)
    for shard in shards:
        report_path(shard.path).unlink(missing_ok=True)


def _plan(splits: Mapping[str, list[Pair]], config: ConvertConfig, folder: Path) -> list[Shard]:
    """Shuffle each split and cut it into shards of ceil(pairs / shards), as the original: the last may be empty."""
    shards = []
    for split, pairs in splits.items():
        shuffled = list(pairs)
        random.Random(f"{config.seed}/{split}").shuffle(shuffled)
        size = -(-len(shuffled) // config.num_shards)
        for index in range(config.num_shards):
            path = folder / shard_name(split, index, config.num_shards)
            shards.append(Shard(split, path, tuple(shuffled[index * size : (index + 1) * size])))
    return shards


def _clear(folder: Path, shards: Sequence[Shard]) -> None:
    """Leave nothing of this work."""
    for path in (*(shard.path for shard in shards), folder / ARCHIVE_NAME, folder / FILE_NAME):
        path.unlink(missing_ok=True)
        report_path(path).unlink(missing_ok=True)
    _clear_partial(folder)


def _clear_partial(folder: Path) -> None:
    """Remove what an interrupted run was writing."""
    for path in folder.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _by_split(shards: Sequence[Shard], reports: Sequence[ShardReport]) -> dict[str, SplitRecords]:
    splits: dict[str, SplitRecords] = {}
    for shard, report in zip(shards, reports, strict=True):
        before = splits.get(shard.split, SplitRecords(pairs=0, largest=(0, 0)))
        height, width = (max(sides) for sides in zip(before.largest, report.largest, strict=True))
        splits[shard.split] = SplitRecords(pairs=before.pairs + report.pairs, largest=(height, width))
    return splits


def _refuse_empty(splits: Mapping[str, SplitRecords], source: Source) -> None:
    empty = [split for split, records in splits.items() if not records.pairs]
    if empty:
        raise DataError(f"{source.shown}: no pair of split {', '.join(empty)} is good; mend the data")


def _notes(
    source: Source, found: Found, splits: Mapping[str, SplitRecords], reports: Sequence[ShardReport]
) -> dict[str, Any]:
    """What the manifest says: sizes, and what was left out or is odd. Names are the source's own, without its path."""
    inside = f"{source.shown}: "
    skipped = [*found.lonely, *(text for report in reports for text in report.skipped)]
    return {
        "splits": {split: records.model_dump(mode="json") for split, records in splits.items()},
        "skipped": [text.replace(inside, "") for text in skipped],
        "left_out": list(found.left_out),
        "remarks": [text.replace(inside, "") for report in reports for text in report.remarks],
    }
