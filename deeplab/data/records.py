"""Random access to the records of a split, each checked as it is read."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from deeplab.data.tfrecord import CHECKSUM_SIZE, index_records, masked_crc
from deeplab.errors import DataError


class RecordReader:
    """The records of some shards, in order, by number.

    Raises:
        DataError: if the shards hold no record, or one is cut short.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        self._shards = list(shards)
        tables = [index_records(shard) for shard in shards]
        self._shard = np.concatenate([np.full(len(table), number) for number, table in enumerate(tables)])
        self._first = np.cumsum([0, *(len(table) for table in tables)])
        self._place = np.concatenate(tables)
        self._files = [os.open(shard, os.O_RDONLY) for shard in shards]
        if not len(self):
            raise DataError(f"{shards[0].parent}: the shards hold no record; convert the data again")

    def __len__(self) -> int:
        return len(self._shard)

    def __getitem__(self, number: int) -> bytes:
        """The payload of a record.

        Raises:
            DataError: if its checksum says that it is damaged.
        """
        offset, length = (int(value) for value in self._place[number])
        content = os.pread(self._files[self._shard[number]], length + CHECKSUM_SIZE, offset)
        payload, checksum = content[:length], content[length:]
        if checksum != masked_crc(payload).to_bytes(CHECKSUM_SIZE, "little"):
            raise DataError(f"{self.where(number)} is damaged (checksum); convert or fetch the shards again")
        return payload

    def where(self, number: int) -> str:
        """File, and number in that file, of a record: the start of a message about it."""
        shard = int(self._shard[number])
        return f"{self._shards[shard]}: record {number - self._first[shard]}"
