"""What holds for every test."""

import signal
from collections.abc import Iterator

import pytest


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
