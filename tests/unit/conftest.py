"""A file server on this machine that can do ranges, fail and hang up, and remembers what it was asked."""

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FileServer:
    """Serves ``files`` (name -> content) at ``address``.

    Attributes:
        requests: method, name and Range header of every request.
        cut_after: hang up after so many bytes of the next body.
        ranges: whether ranges are honoured.
        tags: whether content is marked by an ETag.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.cut_after: int | None = None
        self.ranges = self.tags = True
        self.address = ""

    @property
    def transfers(self) -> list[str | None]:
        """The Range header of every GET."""
        return [requested for method, _, requested in self.requests if method == "GET"]

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
        if request.command == "GET":
            end = None if self.cut_after is None else first + self.cut_after
            self.cut_after = None
            request.wfile.write(content[first:end])


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
