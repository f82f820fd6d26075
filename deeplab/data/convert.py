"""Stage ``convert``: photos and masks to TFRecord shards with the original's names and features.

Straight from the zip archive: reading and checking a pair costs less than unpacking it. Unlike the original's, the
records of a seed are always the same, ``image/filename`` is the photo's base name instead of a path on some machine,
and ``image/format`` is what the photo is.
"""

import logging
import random
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deeplab.config import ConvertConfig, resolve
from deeplab.data.datasets import Dataset, get_dataset
from deeplab.data.images import check_mask, check_pair, check_photo
from deeplab.data.packing import pack
from deeplab.data.pairs import Pair, Source, find_pairs, folder_flags, open_source
from deeplab.data.shards import ARCHIVE_NAME, shard_name
from deeplab.data.tfrecord import frame, serialise_example
from deeplab.errors import ConfigError
from deeplab.stage import OutputFolder, Progress, emit_metrics
from deeplab.stage.inputs import input_digest
from deeplab.stage.versions import CODE_VERSIONS

# Data sets whose layout this stage reads.
_CONVERTIBLE = ("ade20k", "sample")
# Buffer of a shard that is being written, bytes: a dozen records.
_BUFFER = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A shard to write: its final path and its pairs in order."""

    path: Path
    pairs: tuple[Pair, ...]


def run(given: Mapping[str, Any]) -> None:
    """Convert a data set; ``given`` are flags of ``ConvertConfig``.

    Raises:
        ConfigError: for a bad flag or a data set that cannot be converted.
        DataError: for a missing or damaged source, photo or mask.
        OutputError: if the folder cannot be written or holds other work.
    """
    config = resolve(ConvertConfig, given)
    dataset = _convertible(config.dataset)
    with open_source(config) as source:
        splits = find_pairs(source)
        with OutputFolder(config.output_dir, "convert", CODE_VERSIONS["convert"], config, _digests(config)) as folder:
            if folder.finished:
                _log.info("%s: already converted", folder.path)
                return
            shards = _plan(splits, config, folder.path)
            _clear(folder.path, shards)
            try:
                _write_all(_ShardWriter(source, dataset, sum(map(len, splits.values()))), shards, config.num_threads)
                archive = folder.path / ARCHIVE_NAME
                pack([shard.path for shard in shards], archive)
            except BaseException:
                _clear(folder.path, shards)
                raise
            for split, pairs in splits.items():
                emit_metrics(split=split, pairs=len(pairs), shards=config.num_shards)
            folder.finish([*(shard.path for shard in shards), archive])


def _convertible(name: str) -> Dataset:
    dataset = get_dataset(name)
    if name not in _CONVERTIBLE:
        raise ConfigError(
            f"--dataset={name}: its layout cannot be converted yet; convertible are {', '.join(_CONVERTIBLE)}"
        )
    return dataset


def _digests(config: ConvertConfig) -> dict[str, str]:
    places = folder_flags(config) if config.source is None else {"source": config.source}
    return {name: input_digest(place) for name, place in places.items()}


def _plan(splits: Mapping[str, list[Pair]], config: ConvertConfig, folder: Path) -> list[Shard]:
    """Shuffle each split and cut it into shards of ceil(pairs / shards), as the original: the last may be empty."""
    shards = []
    for split, pairs in splits.items():
        shuffled = list(pairs)
        random.Random(f"{config.seed}/{split}").shuffle(shuffled)
        size = -(-len(shuffled) // config.num_shards)
        for index in range(config.num_shards):
            path = folder / shard_name(split, index, config.num_shards)
            shards.append(Shard(path, tuple(shuffled[index * size : (index + 1) * size])))
    return shards


def _clear(folder: Path, shards: Sequence[Shard]) -> None:
    """Remove what an earlier or failed run of this command left; nothing of it is taken up again."""
    for path in (*(shard.path for shard in shards), folder / ARCHIVE_NAME):
        path.unlink(missing_ok=True)
    for path in folder.glob(".tmp-*"):
        path.unlink(missing_ok=True)


def _write_all(writer: "_ShardWriter", shards: Sequence[Shard], num_threads: int) -> None:
    """Write every shard, several at a time; the first error, or a stop request, ends them all."""
    with ThreadPoolExecutor(num_threads, thread_name_prefix="convert") as pool:
        try:
            futures = [pool.submit(writer.write, shard) for shard in shards]
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            # Harmless when all is done; after an error or a signal the threads leave at their next pair.
            writer.cancelled.set()
            pool.shutdown(wait=True, cancel_futures=True)
            writer.progress.close()
    for future in futures:
        if not future.cancelled() and (error := future.exception()) and not isinstance(error, _Cancelled):
            raise error


class _Cancelled(Exception):
    """Ends a thread's work after an error elsewhere."""


class _ShardWriter:
    """Writes shards from several threads, counting pairs.

    Attributes:
        cancelled: when set, threads stop before their next pair.
    """

    def __init__(self, source: Source, dataset: Dataset, total: int) -> None:
        self._source, self._dataset = source, dataset
        self._lock = threading.Lock()
        self.progress = Progress(total, "pairs")
        self.cancelled = threading.Event()

    def write(self, shard: Shard) -> None:
        temporary = shard.path.with_name(f".tmp-{shard.path.name}")
        try:
            with temporary.open("wb", buffering=_BUFFER) as file:
                for pair in shard.pairs:
                    if self.cancelled.is_set():
                        raise _Cancelled
                    file.write(frame(self._example(pair)))
                    with self._lock:
                        self.progress.advance()
            temporary.replace(shard.path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _example(self, pair: Pair) -> bytes:
        photo_name, mask_name = self._source.describe(pair.photo), self._source.describe(pair.mask)
        photo = check_photo(self._source.read(pair.photo), photo_name)
        mask = check_mask(self._source.read(pair.mask), mask_name, self._dataset)
        check_pair(photo, mask, photo_name, mask_name)
        return serialise_example(
            {
                "image/encoded": photo.encoded,
                "image/filename": pair.file_name.encode(),
                "image/format": photo.format.encode(),
                "image/height": photo.height,
                "image/width": photo.width,
                "image/channels": 3,
                "image/segmentation/class/encoded": mask.encoded,
                "image/segmentation/class/format": mask.format.encode(),
            }
        )
