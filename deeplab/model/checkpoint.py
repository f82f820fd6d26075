"""Checkpoints in TensorFlow 1's format: found, read and written by variable name.

A checkpoint is given as a folder, a prefix (``…/model.ckpt-1000``) or an archive holding one.
"""

import hashlib
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from deeplab.config import ModelDescription
from deeplab.config.description import FILE_NAME as DESCRIPTION_NAME
from deeplab.data.packing import ARCHIVE_SUFFIXES, unpack
from deeplab.errors import CheckpointError, OutputError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint on this disk.

    Attributes:
        prefix: path without ``.index``.
        description: the ``model.json`` beside it, if any.
    """

    prefix: Path
    description: ModelDescription | None

    @property
    def step(self) -> int:
        """The number at the end of its name; 0 where there is none."""
        return _step_of(self.prefix.name)

    def files(self) -> list[Path]:
        """The files it consists of."""
        return [self.prefix.with_name(f"{self.prefix.name}.index"), *self._data_files()]

    def _data_files(self) -> list[Path]:
        return sorted(self.prefix.parent.glob(f"{_escaped(self.prefix.name)}.data-?????-of-?????"))

    def read(self) -> dict[str, Array]:
        """All values by name.

        Raises:
            CheckpointError: if files are missing or damaged.
        """
        try:
            reader = tf.train.load_checkpoint(str(self.prefix))
            return {name: reader.get_tensor(name) for name in sorted(reader.get_variable_to_shape_map())}
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CheckpointError(
                f"{self.prefix}: cannot be read ({reason}); is a file missing or cut short?"
            ) from None

    def digest(self) -> str:
        """SHA-256 over names, types, shapes and values, and the description."""
        return content_digest(self.read(), self.description)


def content_digest(values: Mapping[str, Array], description: ModelDescription | None) -> str:
    """SHA-256 over names, types, shapes and values, and the description."""
    digest = hashlib.sha256()
    for name in sorted(values):
        value = np.asarray(values[name])
        digest.update(f"{name}\0{value.dtype}\0{value.shape}\0".encode())
        digest.update(np.ascontiguousarray(value).tobytes())
    if description is not None:
        digest.update(description.model_dump_json().encode())
    return digest.hexdigest()


@contextmanager
def open_checkpoint(path: str | Path) -> Iterator[Checkpoint]:
    """Find the checkpoint that ``path`` means; an archive is unpacked for the length of the block.

    Raises:
        CheckpointError: telling what was found nearby instead.
    """
    place = _lone_archive(Path(path))
    if place.is_file() and place.name.endswith(ARCHIVE_SUFFIXES):
        with tempfile.TemporaryDirectory(prefix="deeplab-checkpoint-") as folder:
            unpack(place, Path(folder))
            yield _in_tree(Path(folder), place)
    else:
        yield locate(place)


def _lone_archive(place: Path) -> Path:
    """A folder that holds no checkpoint but one archive stands for that archive."""
    if not place.is_dir() or _latest(place) is not None:
        return place
    archives = [entry for entry in place.iterdir() if entry.name.endswith(ARCHIVE_SUFFIXES)]
    return archives[0] if len(archives) == 1 else place


def locate(place: Path) -> Checkpoint:
    """The checkpoint in a folder or at a prefix.

    Raises:
        CheckpointError: telling what was found nearby instead.
    """
    if place.is_dir():
        prefix = _latest(place)
        if prefix is None:
            raise CheckpointError(f"{place}: no checkpoint in this folder; {_nearby(place)}")
        return _at(prefix)
    prefix = place.with_name(re.sub(r"\.(index|meta|data-\d{5}-of-\d{5})$", "", place.name))
    if prefix.with_name(f"{prefix.name}.index").is_file():
        return _at(prefix)
    raise CheckpointError(f"{place}: no such checkpoint; {_nearby(place.parent)}")


def _at(prefix: Path) -> Checkpoint:
    checkpoint = Checkpoint(prefix, _description(prefix))
    if len(checkpoint.files()) < 2:
        raise CheckpointError(f"{prefix}: has an .index but no .data file; copy {prefix.name}.data-* there too")
    return checkpoint


def _description(prefix: Path) -> ModelDescription | None:
    for candidate in (
        prefix.with_name(f"{prefix.name}.{DESCRIPTION_NAME}"),
        prefix.with_name(DESCRIPTION_NAME),
    ):
        if candidate.is_file():
            return ModelDescription.read(candidate)
    return None


def _latest(folder: Path) -> Path | None:
    """The checkpoint that the state file names, else the one with the highest step."""
    state = folder / "checkpoint"
    if state.is_file():
        match = re.search(r'^model_checkpoint_path:\s*"(.*)"', state.read_text(encoding="utf-8"), re.MULTILINE)
        # The state file may have been written elsewhere: only the name counts.
        if match and (folder / f"{Path(match[1]).name}.index").is_file():
            return folder / Path(match[1]).name
    indexes = sorted(folder.glob("*.index"), key=lambda path: _step_of(path.name.removesuffix(".index")))
    return indexes[-1].with_suffix("") if indexes else None


def _step_of(name: str) -> int:
    match = re.search(r"-(\d+)$", name)
    return int(match[1]) if match else 0


def _in_tree(folder: Path, archive: Path) -> Checkpoint:
    folders = {index.parent for index in folder.rglob("*.index")}
    if len(folders) != 1:
        found = f"{len(folders)} folders with checkpoints" if folders else "no checkpoint"
        raise CheckpointError(f"{archive}: {found} in this archive; one is needed")
    return locate(folders.pop())


def _nearby(folder: Path) -> str:
    """What a person who mistyped a path would want to know."""
    if not folder.is_dir():
        return f"there is no folder {folder}"
    around = {*folder.glob("*.index"), *folder.glob("*/*.index"), *folder.parent.glob("*/*.index")}
    prefixes = sorted(str(index.with_suffix("")) for index in around)
    if prefixes:
        return f"nearby: {', '.join(prefixes[:5])}"
    content = sorted(entry.name for entry in folder.iterdir() if not entry.name.startswith("."))
    return f"it holds {', '.join(content[:5])}" if content else "it is empty"


def _escaped(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)


def write_checkpoint(prefix: Path, values: Mapping[str, Array]) -> None:
    """Write values under their names, readable by TensorFlow 1's Saver. The index appears last, by rename.

    Raises:
        OutputError: if they cannot be written, as on a full disk; checkpoints that were there before are as they were.
    """
    names = sorted(values)
    tensors = [tf.constant(values[name]) for name in names]
    try:
        tf.raw_ops.SaveV2(prefix=str(prefix), tensor_names=names, shape_and_slices=[""] * len(names), tensors=tensors)
    except tf.errors.OpError as error:
        # TensorFlow says: {{function_node …}} FILE; the system's words [Op:SaveV2]
        reason = error.message.rpartition("; ")[2].partition(" [Op:")[0]
        raise OutputError(
            f"{prefix}: cannot be written ({reason}); make room, or permit writing there, and repeat the command: "
            "it goes on from the checkpoint before"
        ) from None


def write_state(folder: Path, prefixes: list[Path]) -> None:
    """Write the ``checkpoint`` state file: the last prefix is the current one; names only, so folders can move."""
    lines = [f'model_checkpoint_path: "{prefixes[-1].name}"']
    lines += [f'all_model_checkpoint_paths: "{prefix.name}"' for prefix in prefixes]
    temporary = folder / ".tmp-checkpoint"
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(folder / "checkpoint")
