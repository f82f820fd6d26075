"""What holds for every test."""

import signal


def pytest_configure() -> None:
    """Ctrl-C works in tests even where a shell that put the run in the background has switched it off."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
