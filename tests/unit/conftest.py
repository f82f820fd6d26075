"""A file server on this machine that can do ranges, fail and hang up, and remembers what it was asked."""

import hashlib
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest


class FileServer:
    """Serves ``files`` (name -> content) at ``address``.

    Attributes:
        requests: method, name and Range header of every request.
        ranges: whether ranges are honoured.
        tags: whether content is marked by an ETag.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self._cut: tuple[int, Path] | None = None
        self.ranges = self.tags = True
        self.address = ""

    @property
    def transfers(self) -> list[str | None]:
        """The Range header of every GET."""
        return [requested for method, _, requested in self.requests if method == "GET"]

    def cut(self, after: int, arriving: Path) -> None:
        """Hang up in the middle of the next body, once the client has put something of it into a file.

        Without that wait a client may lose all that it received but had not read yet.
        """
        self._cut = after, arriving

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.partition("?")[0].lstrip("/")
        requested = request.headers.get("Range")
        self.requests.append((request.command, name, requested))
        if name not in self.files:
            request.send_error(404)
            return
        content = self.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        first = 0
        if self.ranges and requested and request.headers.get("If-Range", tag) == tag:
            first = int(requested.removeprefix("bytes=").partition("-")[0])
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        request.send_header("Content-Length", str(len(content) - first))
        if self.tags:
            request.send_header("ETag", tag)
        request.end_headers()
        if request.command == "GET" and self._cut is None:
            request.wfile.write(content[first:])
        elif request.command == "GET" and self._cut is not None:
            (after, arriving), self._cut = self._cut, None
            request.wfile.write(content[first : first + after])
            deadline = time.monotonic() + 30
            while not (arriving.exists() and arriving.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.01)


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.answer(self)

        do_HEAD = do_GET

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        served.address = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield served
        finally:
            listening.shutdown()
            thread.join()
