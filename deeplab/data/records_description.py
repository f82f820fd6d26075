"""``dataset.json``: what records are of. It lies beside the shards and in their archive.

With it a training needs no ``--dataset``, and no description of one's own data set travels along separately.
"""

import json
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from deeplab.config import ClassDescription, ModelDescription
from deeplab.data.datasets import Dataset, described_dataset, get_dataset
from deeplab.data.packing import ARCHIVE_SUFFIXES
from deeplab.data.shards import lone_archive
from deeplab.errors import ConfigError, DataError

FILE_NAME = "dataset.json"


class SplitRecords(BaseModel):
    """One split: its pairs, and the largest height and width among them, pixels (perhaps of different photos)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pairs: int
    largest: tuple[int, int]


class RecordsDescription(BaseModel):
    """The content of ``dataset.json``; holds no path, time or host."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = 1
    dataset: str
    ignore_label: int
    ignore_colour: tuple[int, int, int]
    classes: tuple[ClassDescription, ...]
    splits: dict[str, SplitRecords]

    @classmethod
    def of(cls, dataset: Dataset, splits: dict[str, SplitRecords]) -> "RecordsDescription":
        """Describe the records of a data set."""
        return cls(**dataset.description(), ignore_colour=dataset.ignore_colour, splits=splits)

    def as_dataset(self) -> Dataset:
        """The data set that they are of, without its files."""
        return described_dataset(self.dataset, self.ignore_label, self.classes, self.ignore_colour)

    def write(self, path: Path) -> None:
        """Write as indented JSON, by rename."""
        temporary = path.with_name(f".tmp-{path.name}")
        temporary.write_text(json.dumps(self.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)


def describe_records(place: str | Path) -> RecordsDescription | None:
    """What the records behind ``--dataset_dir`` are of; None where they do not tell.

    Raises:
        DataError: if the description is damaged.
    """
    path = Path(place)
    archive = path if path.is_file() else lone_archive(path) if path.is_dir() else None
    if archive is not None:
        text = _packed(archive)
    else:
        file = path / FILE_NAME
        text = file.read_bytes() if file.is_file() else None
    if text is None:
        return None
    try:
        return RecordsDescription.model_validate_json(text)
    except ValidationError as error:
        reason = str(error.errors()[0]["msg"])
        raise DataError(f"{place}: {FILE_NAME} is damaged ({reason}); convert the data again") from None


def _packed(archive: Path) -> bytes | None:
    """The description in an archive, of whose names it is the first; None if it is not there, or no archive."""
    if not archive.name.endswith(ARCHIVE_SUFFIXES):
        return None
    try:
        with tarfile.open(archive, "r|*") as opened:
            first = opened.next()
            if first is None or first.name != FILE_NAME:
                return None
            file = opened.extractfile(first)
            return file.read() if file else None
    except (tarfile.TarError, EOFError, zlib.error, OSError):
        return None  # whoever unpacks it says what is wrong


def records_dataset(
    given: Mapping[str, Any], told: RecordsDescription | None, description: ModelDescription | None = None
) -> dict[str, Any]:
    """The flags with the data set that the records tell of, where neither a flag nor a ``model.json`` names one."""
    if told is None or given.get("dataset") or (description is not None and description.dataset is not None):
        return dict(given)
    return {**given, "dataset": told.dataset}


def find_dataset(name: str, told: RecordsDescription | None, description: ModelDescription | None = None) -> Dataset:
    """The data set of that name, which records or a model may describe; it is what the records are of.

    Raises:
        ConfigError: for an unknown name, or records of other classes, naming both.
    """
    known = [told.as_dataset()] if told is not None else []
    if description is not None and description.dataset is not None and description.classes:
        known.insert(0, described_dataset(description.dataset, description.ignore_label, description.classes))
    dataset = get_dataset(name, known)
    if told is None or (dataset.num_classes, dataset.ignore_label) == (len(told.classes), told.ignore_label):
        return dataset
    raise ConfigError(
        f"--dataset={name} has {dataset.num_classes} classes and ignores {dataset.ignore_label}, but the records are "
        f"of {told.dataset}, with {len(told.classes)} classes and {told.ignore_label} ignored; leave --dataset out, "
        "or convert the data again"
    )
