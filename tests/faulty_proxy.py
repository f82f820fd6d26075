"""A real HTTP proxy in front of a blob service, that hangs up, stalls, refuses and vanishes as it is told."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_BLOCK = 64 << 10


class FaultyProxy:
    """Passes GET requests on to a service; its faults can be set and unset at any time.

    Attributes:
        endpoint: the service's URL as clients of the proxy write it.
        cut_after: bytes of a body after which the connection is cut.
        stall_after: bytes of the next body after which nothing more comes, once.
        busy: how many of the next transfers to answer with 503.
        retry_after: the seconds that such an answer asks to wait.
        rate: bytes a second of each connection.
        sent: bytes of all bodies that were passed on.
        ranges: the Range header of every request.
    """

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = parts.netloc
        self._path, self._port = parts.path, 0
        self._server: ThreadingHTTPServer | None = None
        self._connections: set[socket.socket] = set()
        self._moment: tuple[int, Callable[[], None]] | None = None
        self._lock = threading.Lock()
        self.cut_after: int | None = None
        self.stall_after: int | None = None
        self.busy, self.retry_after = 0, 1
        self.rate: float | None = None
        self.sent = 0
        self.ranges: list[str | None] = []

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}{self._path}"

    def at(self, sent: int, act: Callable[[], None]) -> None:
        """Call a function once so many bytes were passed on, before any more are."""
        self._moment = sent, act

    def start(self) -> None:
        """Listen, at the same port as before."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                super().setup()
                proxy._connections.add(self.connection)

            def finish(self) -> None:
                proxy._connections.discard(self.connection)
                with suppress(OSError):
                    super().finish()

            def do_GET(self) -> None:
                with suppress(OSError):
                    proxy._answer(self)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, request: Any, client_address: Any) -> None:
                pass  # a client that hangs up, or one whose connection was cut on purpose

        self._server = Server(("127.0.0.1", self._port), Handler)
        self._port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def vanish(self) -> None:
        """Cut all connections and listen no more."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = request.headers.get("Range")
        self.ranges.append(asked)
        if asked != "bytes=0-0" and self._take_busy():
            request.send_response(503)
            request.send_header("Retry-After", str(self.retry_after))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        upstream = http.client.HTTPConnection(self._upstream, timeout=60)
        try:
            headers = {name: value for name, value in request.headers.items() if name.lower() != "host"}
            upstream.request("GET", request.path, headers={**headers, "Host": self._upstream, "Connection": "close"})
            answer = upstream.getresponse()
            request.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in ("connection", "keep-alive", "transfer-encoding"):
                    request.send_header(name, value)
            if answer.getheader("Content-Length") is None:  # the errors of Azurite; read to the end of the connection
                request.send_header("Connection", "close")
            request.end_headers()
            self._pass_on(answer, request, faulty=asked != "bytes=0-0" and answer.status == 206)
        finally:
            upstream.close()

    def _pass_on(self, answer: http.client.HTTPResponse, request: BaseHTTPRequestHandler, *, faulty: bool) -> None:
        limit = self.cut_after if faulty else None
        stall = self._take_stall() if faulty else None
        passed = 0
        while block := answer.read(_BLOCK):
            if limit is not None and passed + len(block) > limit:
                request.wfile.write(block[: limit - passed])
                request.connection.shutdown(socket.SHUT_RDWR)
                request.close_connection = True
                return
            if stall is not None and passed + len(block) > stall:
                request.connection.recv(1)  # returns when the client has given up
                request.close_connection = True
                return
            request.wfile.write(block)
            passed += len(block)
            if faulty:
                self._count(len(block))

    def _count(self, count: int) -> None:
        with self._lock:
            self.sent += count
            due = self._moment if self._moment and self.sent >= self._moment[0] else None
            if due:
                self._moment = None
                due[1]()
        if self.rate:
            time.sleep(count / self.rate)

    def _take_busy(self) -> bool:
        with self._lock:
            busy = self.busy > 0
            self.busy -= busy
            return busy

    def _take_stall(self) -> int | None:
        with self._lock:
            stall, self.stall_after = self.stall_after, None
            return stall


@contextmanager
def in_front_of(upstream: str) -> Iterator[FaultyProxy]:
    """A proxy until the end of the block, faultless to begin with."""
    proxy = FaultyProxy(upstream)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.vanish()
