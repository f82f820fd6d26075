"""What can be brought here: a file somewhere, with what tells its version from another."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from deeplab.errors import FetchError


class Reader(Protocol):
    """A file opened somewhere in its middle."""

    def read(self, count: int, /) -> bytes:
        """The next bytes, at most ``count``; empty at the end."""

    def close(self) -> None:
        """Let go of the file; from another thread, end a ``read`` that waits."""


@dataclass(frozen=True)
class Origin:
    """A file to bring here.

    Attributes:
        shown: the source without credentials, for messages.
        name: the name the file keeps.
        size: its length in bytes, or None if the server does not tell.
        identity: what tells this content from another under the same address.
        open: opens it at a byte for reading up to another (exclusive), or, with None, to its end.
        resumable: whether it can be opened in the middle, of this very version.
        streams: readers that pay at the same time.
        md5: its MD5, hexadecimal, where the source tells.
        look_again: its identity by now, for sources that do not compare versions themselves when they are opened.
    """

    shown: str
    name: str
    size: int | None
    identity: Mapping[str, str]
    open: Callable[[int, int | None], Reader]
    resumable: bool
    streams: int = 1
    md5: str | None = None
    look_again: Callable[[], Mapping[str, str]] | None = None


class Interrupted(FetchError):
    """A failure that may pass: to be tried again at the byte that is missing."""


class Busy(Interrupted):
    """A server that is there but cannot answer now.

    Attributes:
        pause: seconds that it asks to wait, if it does.
    """

    def __init__(self, message: str, pause: float | None) -> None:
        super().__init__(message)
        self.pause = pause


class Replaced(FetchError):
    """The content changed while it was downloaded: what is here of it is of no use."""

    def __init__(self, shown: str) -> None:
        super().__init__(f"{shown}: was replaced while it was being downloaded; run the same command again")


# A name and password in front of a host; the signatures of Azure, Amazon and Google.
_PASSWORD = re.compile(r"(://)[^/@\s]*:[^/@\s]*@")
_SIGNATURE = re.compile(r"[?&](sig|signature|x-amz-signature|x-goog-signature)=", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Drop query strings (signatures), and names and passwords in front of hosts."""
    return re.sub(r"\?[^\s'\")]+", "", _PASSWORD.sub(r"\1", text)).strip()


def holds_secrets(address: str) -> bool:
    """Whether an address has a signature, or a name and password, in it."""
    return bool(_PASSWORD.search(address) or _SIGNATURE.search(address))


def safe_name(name: str, shown: str) -> str:
    """A name that may become a file's here.

    Raises:
        FetchError: if it may not.
    """
    if not name or name in (".", "..") or re.search(r"[/\\\0]", name) or name == "manifest.json":
        raise FetchError(
            f"{shown}: its last part, {name!r}, cannot name the file; give an address that ends in a file name"
        )
    return name
