"""A file server on this machine that can do ranges, fail and hang up, and remembers what it was asked."""

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


class FileServer:
    """Serves ``files`` (name -> content) at ``address``.

    Attributes:
        requests: method, name and Range header of every request.
        ranges: whether ranges are honoured.
        tags: whether content is marked by an ETag.
        hold: bytes of a body after which nothing more comes until the client hangs up.
        plain: a range of everything is answered as if none was asked for.
        limit: transfers at a time; others are told that the server is busy.
        pause: seconds that each part of a body takes, of ``PART`` bytes.
    """

    PART = 32 << 10

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.ranges = self.tags = True
        self.address = ""
        self.hold: int | None = None
        self.plain, self.limit, self.pause = False, 0, 0.0
        self._cut: int | None = None
        self._closed = self._once = False
        self._active = threading.Semaphore(0)

    @property
    def transfers(self) -> list[str | None]:
        """The Range header of every request for more than a first byte."""
        return [requested for _, _, requested in self.requests if requested != "bytes=0-0"]

    def cut(self, after: int, *, once: bool = False) -> None:
        """Hang up in the middle of the next body, and, unless it is for once, refuse every transfer from then on."""
        self._cut, self._once = after, once

    def serve_at_once(self, count: int) -> None:
        """Serve so many transfers at a time."""
        self.limit, self._active = count, threading.Semaphore(count)

    def mend(self) -> None:
        """Be a good server again, with a clean sheet."""
        self._cut, self._closed = None, False
        self.requests.clear()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = request.path.partition("?")[0].lstrip("/")
        requested = request.headers.get("Range")
        self.requests.append((request.command, name, requested))
        if name not in self.files or (self._closed and requested != "bytes=0-0"):
            request.send_error(403 if self._closed else 404)
            return
        content = self.files[name]
        tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
        if request.headers.get("If-Match", tag) != tag:
            request.send_error(412)
            return
        if self.limit and not self._active.acquire(blocking=False):
            request.send_error(503)
            return
        try:
            self._send(request, content, self._span(requested, len(content)), tag)
        finally:
            if self.limit:
                self._active.release()

    def _span(self, requested: str | None, size: int) -> tuple[int, int] | None:
        if not self.ranges or not requested or not size:
            return None
        first, _, last = requested.removeprefix("bytes=").partition("-")
        span = int(first), min(int(last) + 1, size)
        return None if self.plain and span == (0, size) else span

    def _send(self, request: BaseHTTPRequestHandler, content: bytes, span: tuple[int, int] | None, tag: str) -> None:
        first, stop = span or (0, len(content))
        request.send_response(206 if span else 200)
        if span:
            request.send_header("Content-Range", f"bytes {first}-{stop - 1}/{len(content)}")
        request.send_header("Content-Length", str(stop - first))
        if self.tags:
            request.send_header("ETag", tag)
        request.end_headers()
        if self._cut is not None and request.headers.get("Range") != "bytes=0-0":
            stop, self._cut, self._closed = first + self._cut, None, not self._once
        if self.hold is None:
            with suppress(ConnectionError):  # a client may have seen enough
                for start in range(first, stop, self.PART):
                    time.sleep(self.pause)
                    request.wfile.write(content[start : min(stop, start + self.PART)])
        else:
            request.wfile.write(content[first : first + self.hold])
            request.connection.recv(1)


@pytest.fixture
def server() -> Iterator[FileServer]:
    served = FileServer()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            served.answer(self)

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
