"""Writing shards: one a thread, each under its final name only when it is whole, none twice.

Beside a finished shard lies ``.NAME.done`` with what is known of it, until the manifest takes that over. It is how an
interrupted conversion goes on with the shards that are missing.
"""

import hashlib
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.data.images import check_mask, check_pair, check_photo
from deeplab.data.pairs import Pair
from deeplab.data.sources import Source
from deeplab.data.tfrecord import example_parts, frame_parts
from deeplab.errors import DataError
from deeplab.stage import Progress

# Bytes that are written and digested at once: some twenty records. Each call lets another thread in, which costs more
# than the call where it is about a few bytes.
_BLOCK = 1 << 20
# With --validate=sample every so many pairs one mask's values are looked at.
_SAMPLED = 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Shard:
    """A shard to write: its split, its final path, and its pairs in order."""

    split: str
    path: Path
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Checks:
    """How closely pairs are looked at, and what becomes of bad ones."""

    level: str
    skip: bool

    def values(self, pair: Pair) -> bool:
        """Whether every value of the pair's mask is looked at."""
        return self.level in ("labels", "decode") or (self.level == "sample" and pair.number % _SAMPLED == 0)


class ShardReport(BaseModel):
    """What is known of a finished shard.

    Attributes:
        size: bytes.
        sha256: digest of the file, hexadecimal.
        pairs: records in it.
        largest: the largest height and width among its photos, pixels.
        skipped: why pairs were left out.
        remarks: what is odd about pairs that were kept.
    """

    model_config = ConfigDict(frozen=True)

    size: int = 0
    sha256: str
    pairs: int = 0
    largest: tuple[int, int] = (0, 0)
    skipped: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


class _Output:
    """A file that grows by whole blocks, and the digest of what is in it."""

    def __init__(self, file: BinaryIO) -> None:
        self.size, self.digest = 0, hashlib.sha256()
        self._file, self._waiting, self._count = file, list[bytes](), 0

    def add(self, parts: Sequence[bytes]) -> None:
        self._waiting += parts
        self._count += sum(map(len, parts))
        if self._count >= _BLOCK:
            self.flush()

    def flush(self) -> None:
        block = b"".join(self._waiting)
        self._file.write(block)
        self.digest.update(block)
        self.size += len(block)
        self._waiting.clear()
        self._count = 0


class _Cancelled(Exception):
    """Ends a thread's work after an error elsewhere."""


class ShardWriter:
    """Writes shards from several threads, counting pairs.

    Args:
        source: where the pairs are read.
        checks: what is looked at.
        total: pairs in all shards.
    """

    def __init__(self, source: Source, checks: Checks, total: int) -> None:
        self._source, self._checks = source, checks
        self._lock = threading.Lock()
        self._progress = Progress(total, "pairs")
        self._cancelled = threading.Event()

    def write_all(self, shards: Sequence[Shard], num_threads: int) -> list[ShardReport]:
        """Write every shard that is not there yet; the first error, or a stop request, ends them all.

        Raises:
            DataError: for a bad pair, unless such are skipped.
        """
        with ThreadPoolExecutor(num_threads, thread_name_prefix="convert") as pool:
            try:
                futures = [pool.submit(self._write, shard) for shard in shards]
                wait(futures, return_when=FIRST_EXCEPTION)
            finally:
                # Harmless when all is done; after an error or a signal the threads leave at their next pair.
                self._cancelled.set()
                pool.shutdown(wait=True, cancel_futures=True)
                self._progress.close()
        for future in futures:
            if not future.cancelled() and (error := future.exception()) and not isinstance(error, _Cancelled):
                raise error
        return [future.result() for future in futures]

    def _write(self, shard: Shard) -> ShardReport:
        finished = _report_of(shard.path)
        if finished is not None:
            self._advance(len(shard.pairs))
            return finished
        temporary = shard.path.with_name(f".tmp-{shard.path.name}")
        try:
            report = self._write_records(shard, temporary)
            temporary.replace(shard.path)
            _save(report, report_path(shard.path))
            return report
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _write_records(self, shard: Shard, path: Path) -> ShardReport:
        height, width = 0, 0
        skipped: list[str] = []
        remarks: list[str] = []
        with path.open("wb") as file:
            output = _Output(file)
            for pair in shard.pairs:
                if self._cancelled.is_set():
                    raise _Cancelled
                try:
                    record, shape, remark = self._record(pair)
                except DataError as error:
                    if not self._checks.skip:
                        raise
                    _log.warning("left out: %s", error)
                    skipped.append(str(error))
                else:
                    output.add(record)
                    height, width = max(height, shape[0]), max(width, shape[1])
                    remarks += [remark] if remark else []
                self._advance(1)
            output.flush()
        return ShardReport(
            size=output.size,
            sha256=output.digest.hexdigest(),
            pairs=len(shard.pairs) - len(skipped),
            largest=(height, width),
            skipped=tuple(skipped),
            remarks=tuple(remarks),
        )

    def _advance(self, count: int) -> None:
        if count:
            with self._lock:
                self._progress.advance(count)

    def _record(self, pair: Pair) -> tuple[list[bytes], tuple[int, int], str | None]:
        """A checked pair as a record in parts, its height and width, and what is odd about it."""
        try:
            name = pair.name.encode()
        except UnicodeEncodeError:
            raise DataError(f"{pair.photo!a}: its name is not UTF-8; rename it and its mask") from None
        photo_name, mask_name = self._source.describe(pair.photo), self._source.describe(pair.mask)
        photo = check_photo(self._source.read(pair.photo), photo_name, decode=self._checks.level == "decode")
        encoded = self._source.read(pair.mask)
        check_pair(photo, encoded, photo_name, mask_name)
        mask = check_mask(encoded, mask_name, pair.reading, values=self._checks.values(pair))
        remark = f"{photo_name}: {photo.remark}" if photo.remark else None
        if remark:
            _log.warning("%s", remark)
        example = example_parts(
            {
                "image/encoded": photo.encoded,
                "image/filename": name,
                "image/format": photo.format.encode(),
                "image/height": photo.height,
                "image/width": photo.width,
                "image/channels": 3,
                "image/segmentation/class/encoded": mask.encoded,
                "image/segmentation/class/format": mask.format.encode(),
            }
        )
        return frame_parts(example), (photo.height, photo.width), remark


def report_path(shard: Path) -> Path:
    """Where it stands that a shard is finished."""
    return shard.with_name(f".{shard.name}.done")


def _report_of(shard: Path) -> ShardReport | None:
    """What is known of a shard that an interrupted run finished; None if it has to be written."""
    try:
        report = ShardReport.model_validate_json(report_path(shard).read_text(encoding="utf-8"))
        return report if shard.stat().st_size == report.size else None
    except (OSError, UnicodeDecodeError, ValidationError):
        return None


def _save(report: ShardReport, path: Path) -> None:
    temporary = path.with_name(f".tmp-{path.name.lstrip('.')}")
    temporary.write_text(report.model_dump_json(), encoding="utf-8")
    temporary.replace(path)
