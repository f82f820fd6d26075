"""What a stage left, wherever it is: in a folder here, in the store's remote place, with an execution."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from deeplab.errors import DeepLabError
from deeplab.stage.manifest import Manifest
from tasks.errors import StoreError
from tasks.store import Entry


class Copy(Protocol):
    """An output that lies elsewhere."""

    @property
    def manifest(self) -> Manifest:
        """What it consists of."""

    @property
    def place(self) -> str:
        """How a person calls where it lies."""

    def damage(self) -> str | None:
        """Why it no longer is what the manifest says, or None."""

    def bring(self, entry: Entry) -> None:
        """Make the entry whole here."""

    def small_file(self, name: str) -> Path | None:
        """A file of it that is here anyway, or None."""

    def addresses(self) -> list[str]:
        """The files that later stages read, as addresses for an execution."""


@dataclass(frozen=True)
class StageResult:
    """What a stage left.

    Attributes:
        entry: its place in the store.
        manifest: what it consists of.
        reused: whether an earlier run had made it.
        copies: where else it lies, the nearest first.
    """

    entry: Entry
    manifest: Manifest
    reused: bool
    copies: tuple[Copy, ...] = ()

    @property
    def stage(self) -> str:
        """The stage's name."""
        return self.entry.identity.stage

    @property
    def key(self) -> str:
        """The entry's key."""
        return self.entry.identity.key

    @property
    def digest(self) -> str:
        """Digest of the products."""
        return self.manifest.digest

    @property
    def seconds(self) -> float:
        """How long the stage took, in whichever run made it."""
        return float(self.manifest.ran.get("seconds", 0.0))

    @property
    def place(self) -> str:
        """Where a person finds it."""
        return self.place_of(self.entry.file_name or "")

    def place_of(self, name: str) -> str:
        """Where a person finds one file of it."""
        if self.copies and self.entry.manifest() is None:
            return self.copies[0].place
        return shown(self.entry.folder / name)

    def here(self) -> Path:
        """The folder, or the file, on this machine; brought here if it is not whole.

        Raises:
            StoreError: if it cannot be had.
        """
        with self.entry.held(lambda: None):
            reason = self.entry.examine()[1]
            for copy in self.copies if reason else ():
                reason = copy.damage()
                if reason is None:
                    copy.bring(self.entry)
                    break
        if reason is not None:
            raise StoreError(f"{shown(self.entry.output)}: {reason}; run the same command again to make it anew")
        return self.entry.output

    def file(self, name: str) -> Path:
        """A file of the output, to be read here; it may not exist where the stage does not always write it."""
        if self.entry.manifest() is None:  # there may be leavings of an attempt that was broken off
            for copy in self.copies:
                found = copy.small_file(name)
                if found is not None:
                    return found
        return self.here().parent / name if self.entry.file_name else self.here() / name

    def addresses(self) -> list[str]:
        """The files that later stages read, as addresses for an execution.

        Raises:
            StoreError: if no other machine can read them.
        """
        problem = None
        for copy in self.copies:
            try:
                problem = copy.damage()
            except DeepLabError as error:
                problem = str(error)
            if problem is None:
                return copy.addresses()
        raise StoreError(
            f"{shown(self.entry.folder)} was made on this machine, and no execution can read it"
            f"{f' ({problem})' if problem else ''}: give --store=az://CONTAINER/FOLDER, which both can, "
            f"or have it made anew over there (deeplab-store gc {self.key[:12]} --yes)"
        )


def shown(path: Path) -> str:
    """A path as a person here would type it: relative where it lies below the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
