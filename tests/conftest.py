"""What holds for every test."""

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


def needs_program(name: str, how_to_get_it: str) -> pytest.MarkDecorator:
    """Skip where a real part is missing; fail where it must be there (CI installs all of them)."""
    missing = shutil.which(name) is None and not os.environ.get("CI")
    return pytest.mark.skipif(missing, reason=f"{name} is not installed ({how_to_get_it})")
