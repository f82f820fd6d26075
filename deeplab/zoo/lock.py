"""``zoo.lock.json``: the SHA-256 of every archive as it was when it was first fetched.

No checksum was ever published. What the first fetch brings is trusted, and every later one must bring the same. The
file can be kept with a project and copied to where the checkpoints are fetched again.
"""

import json
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from deeplab.errors import ConfigError

LOCK_NAME = "zoo.lock.json"


class Locked(BaseModel):
    """What the first fetch of an archive found: digest, length in bytes, and where (without credentials)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sha256: str
    size: int
    url: str


class Expected(NamedTuple):
    """The SHA-256 that an archive must have, who says so, and what to do if it has another."""

    sha256: str
    said_by: str
    remedy: str


_ENTRIES = TypeAdapter(dict[str, Locked])


def expected_digest(lock: Path, archive: str, given: str | None) -> Expected | None:
    """The digest that the lock file or ``--sha256`` demands; None for a first fetch without either.

    Raises:
        ConfigError: if the two contradict each other, or the lock file cannot be read.
    """
    known = _read(lock).get(archive)
    if known is None:
        return Expected(given.lower(), "--sha256", "correct the flag or the source") if given else None
    if given is not None and given.lower() != known.sha256:
        raise ConfigError(
            f"--sha256={given.lower()} contradicts {lock}, where the first fetch recorded {known.sha256}; "
            f"leave the flag out, or remove the entry {archive} there"
        )
    remedy = f"fetch it from {known.url}, or remove the entry {archive} there to trust the new content"
    return Expected(known.sha256, str(lock), remedy)


def record(lock: Path, archive: str, locked: Locked) -> None:
    """Add the first fetch of an archive; an entry that is there already stays."""
    entries = {archive: locked, **_read(lock)}
    text = json.dumps({name: entries[name].model_dump() for name in sorted(entries)}, indent=1)
    temporary = lock.with_name(f".tmp-{lock.name}")
    temporary.write_text(f"{text}\n", encoding="utf-8")
    temporary.replace(lock)


def _read(lock: Path) -> dict[str, Locked]:
    try:
        return _ENTRIES.validate_json(lock.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (UnicodeDecodeError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"{lock}: not a lock file ({reason}); restore it, or delete it to trust anew") from None
