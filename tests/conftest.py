"""What holds for every test."""

import glob
import os
import shutil
import signal
from collections.abc import Iterator

import pytest

pytest_plugins = ["tests.azurite"]


def pytest_configure() -> None:
    """Ctrl-C works in tests even where a shell that put the run in the background has switched it off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _signals_as_before() -> Iterator[None]:
    """A command that ran in this process leaves no signal handler behind."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def find_program(name: str, folders: str = "") -> str | None:
    """Where a program is: on the path, else in one of the folders that a pattern names, the last one first."""
    found = sorted(glob.glob(f"{folders}/{name}"), reverse=True) if folders else []
    return shutil.which(name) or next(iter(found), None)


def needs_program(name: str, how_to_get_it: str, folders: str = "") -> pytest.MarkDecorator:
    """Skip where a real part is missing; fail where it must be there (CI installs all of them)."""
    missing = find_program(name, folders) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{name} is not installed ({how_to_get_it})")
