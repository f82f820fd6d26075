"""What the person who starts the server may choose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Settings:
    """One server.

    Attributes:
        data: folder that holds all state; a server started again on it goes on where the last one ended.
        workers: executions that run at once; the others wait in ``queued``.
        azure: storage account -> blob endpoint (``http://…``, well-known key of Azurite) or connection string.
        git: repository of the project (URL or path), read by ``project fetch``.
        commands: ``script`` (all pieces in one shell, the last exit code counts) or ``stepwise`` (a shell for
            each piece, stops at the first failure). Public sources disagree on which of them Valohai does.
        paths: ``namespace`` (real ``/valohai/…`` in a private mount namespace), ``rewrite`` (the text
            ``/valohai`` in commands is replaced by the execution's folder), or ``auto``.
        grace: seconds between SIGTERM and SIGKILL at a stop.
        max_page: rows of the longest page, whatever ``limit`` says; 0 = any.
        running_log: newest lines that can be read of an unfinished execution; 0 = all.
    """

    data: Path
    workers: int = 2
    azure: Mapping[str, str] = field(default_factory=dict)
    git: str | None = None
    commands: str = "script"
    paths: str = "auto"
    grace: float = 10.0
    running_log: int = 0
    max_page: int = 0
    token: str | None = None
    username: str = "vh"
    password: str = "valohai"
    project: str = "deeplab"
