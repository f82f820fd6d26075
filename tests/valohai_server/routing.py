"""From a method and a path to the handler that was registered for it."""

import re
from collections.abc import Callable

from tests.valohai_server.answers import ApiError, Handler, not_found

_routes: list[tuple[str, re.Pattern[str], Handler]] = []


def route(method: str, path: str) -> Callable[[Handler], Handler]:
    """Register a handler; ``{name}`` in the path becomes its argument of that name."""
    pattern = re.compile("/api/v0" + re.sub(r"{(\w+)}", r"(?P<\1>[^/]+)", path))

    def register(handler: Handler) -> Handler:
        _routes.append((method, pattern, handler))
        return handler

    return register


def resolve(method: str, path: str) -> tuple[Handler, dict[str, str]]:
    """The handler and its arguments.

    Raises:
        ApiError: 404 for an unknown path, 405 for a known one with another method.
    """
    path = re.sub("//+", "/", path)  # `vh pipeline stop` doubles a slash
    if re.fullmatch(r"/api/v0/data/[^/]+", path):  # valohai-utils leaves it out
        path += "/"
    known = False
    for route_method, pattern, handler in _routes:
        match = pattern.fullmatch(path)
        if match and route_method == method:
            return handler, match.groupdict()
        known = known or bool(match)
    if known:
        raise ApiError(405, {"detail": f'Method "{method}" not allowed.'})
    raise not_found()
