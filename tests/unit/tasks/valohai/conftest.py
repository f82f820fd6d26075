"""A small service that speaks the part of Valohai's API that the client uses, and fails on request."""

import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from tasks.valohai import client as client_module
from tasks.valohai import execution as execution_module
from tasks.valohai import polling as polling_module
from tasks.valohai.client import Client
from tasks.valohai.connection import Connection

TOKEN = "secret-token-0123456789abcdef"
PROJECT = "5f0c0000-0000-4000-8000-000000000001"


class Service:
    """The state of the service.

    Attributes:
        executions: as the API shows them, oldest first; one with a ``script`` changes its status at every look.
        faults: ``(method, pattern, action)``: the first that fits a request is used up. Actions: a status, ``(status,
            headers)``, ``cut`` (no answer), ``lost`` (done, no answer), ``garbage`` (200, no JSON).
        page_limit: the largest page.
        links: whether pages have ``next``.
    """

    def __init__(self) -> None:
        self.executions: list[dict] = []
        self.events: dict[str, list[dict]] = {}
        self.data: dict[str, dict] = {}
        self.content: dict[str, bytes] = {}
        self.commits: list[dict] = []
        self.fetched: list[dict] = []
        self.projects = [{"id": PROJECT, "name": "deeplab"}]
        self.faults: list[tuple[str, str, object]] = []
        self.requests: list[tuple[str, str, dict, dict]] = []
        self.page_limit, self.links, self.shown_events = 1000, True, None
        self.ranges, self.direct = True, False
        self.signature = 0
        self.uploads: list[bytes] = []
        self.address = ""
        self.lock = threading.RLock()

    def paths(self, method: str, pattern: str = "") -> list[str]:
        return [path for asked, path, _, _ in self.requests if asked == method and re.search(pattern, path)]

    def add(self, status: str = "created", tags=(), **more) -> dict:
        counter = len(self.executions) + 1
        execution = {"id": f"0197{counter:04d}-0000-4000-8000-000000000000", "counter": counter, "status": status,
                     "step": "Train", "tags": list(tags), "title": None, "ctime": "2026-01-02T03:04:05.1Z",
                     "urls": {"display": None}, "unknown": 1, **more}  # fmt: skip
        self.executions.append(execution)
        self.events.setdefault(execution["id"], [])
        return execution

    def log(self, execution: dict, *lines: str, time: str | None = None, stream: str = "stdout") -> None:
        events = self.events[execution["id"]]
        for line in lines:
            stamp = time or f"2026-01-02T03:{len(events) // 60 % 60:02d}:{len(events) % 60:02d}.{len(events):06d}"
            events.append({"time": stamp, "stream": stream, "message": line})

    def output(self, name: str, content: bytes, **more) -> dict:
        identifier = f"d{len(self.data):03d}"
        self.content[identifier] = content
        self.data[identifier] = {"id": identifier, "name": name, "size": len(content), "ctime": f"{len(self.data)}",
                                 "sha256": hashlib.sha256(content).hexdigest(), **more}  # fmt: skip
        return self.data[identifier]

    def fault(self, method: str, path: str):
        for number, (wanted, pattern, action) in enumerate(self.faults):
            if wanted == method and re.search(pattern, path):
                del self.faults[number]
                return action
        return None

    # The calls: each returns a status and a body.

    def answer(self, method: str, path: str, query: dict, body: bytes):
        routes = [
            ("GET", r"/projects/$", lambda: self.page(path, self.projects, query)),
            ("GET", r"/projects/([^/]+)/$", lambda _: (200, self.projects[0])),
            ("POST", r"/projects/[^/]+/fetch/$", self.fetch),
            ("POST", r"/projects/[^/]+/import-package/$", lambda: self.upload(body)),
            ("GET", r"/commits/$", lambda: self.page(path, self.commits, query)),
            ("GET", r"/commits/([^/]+)/$", self.commit),
            ("POST", r"/executions/$", lambda: self.create(json.loads(body))),
            ("GET", r"/executions/$", lambda: self.page(path, list(reversed(self.executions)), query)),
            ("GET", r"/executions/([^/]+)/$", self.execution),
            ("GET", r"/executions/([^/]+)/events/$", lambda id: self.event_page(id, int(query["limit"][0]))),
            ("POST", r"/executions/([^/]+)/stop/$", self.stop),
            ("GET", r"/data/$", lambda: self.page(path, list(self.data.values()), query)),
            ("GET", r"/data/([^/]+)/download/$", self.download),
        ]
        for wanted, pattern, call in routes:
            found = re.fullmatch("/api/v0" + pattern, path)
            if wanted == method and found:
                return call(*found.groups())
        return 404, {"detail": "Not found."}

    def page(self, path, rows, query):
        limit = min(int(query["limit"][0]), self.page_limit)
        offset = int(query.get("offset", ["0"])[0])
        answer = {"count": len(rows), "results": rows[offset : offset + limit]}
        if self.links:
            more = offset + limit < len(rows)
            rest = f"{self.address}{path}?limit={limit}&offset={offset + limit}"
            answer["next"] = rest if more else None
        return 200, answer

    def fetch(self):
        self.commits, self.fetched = self.commits + self.fetched, []
        return 200, {"commits": [], "errors": []}

    def upload(self, body: bytes):
        start = body.index(b"\r\n\r\n") + 4
        content = body[start : body.index(b"\r\n--", start)]
        self.uploads.append(body)
        commit = {"identifier": "~" + hashlib.sha256(content).hexdigest(), "adhoc": True, "project_id": PROJECT}
        self.commits.append(commit)
        return 201, commit

    def commit(self, identifier: str):
        found = [commit for commit in self.commits if commit["identifier"] == identifier]
        return (200, found[0]) if found else (404, {"detail": "Not found."})

    def create(self, payload: dict):
        return 201, self.add(step=payload["step"], tags=payload["tags"], payload=payload)

    def execution(self, identifier: str):
        for execution in self.executions:
            if execution["id"] == identifier:
                script = execution.get("script")
                if script:
                    step = script.pop(0)
                    step(execution) if callable(step) else execution.update(status=step)
                return 200, {name: value for name, value in execution.items() if name != "script"}
        return 404, {"detail": "Not found."}

    def event_page(self, identifier: str, limit: int):
        events = self.events[identifier]
        if self.shown_events is not None:
            limit = min(limit or self.shown_events, self.shown_events)
        shown = events[-limit:] if limit else events
        return 200, {"total": len(events), "limit": limit, "truncated": len(shown) < len(events), "events": shown}

    def stop(self, identifier: str):
        for execution in self.executions:
            if execution["id"] == identifier:
                execution.update(status="stopping", script=["stopped"])
        return 200, {"message": "Stop requested."}

    def download(self, identifier: str):
        if self.direct:
            return 200, self.content[identifier]
        self.signature += 1
        return 200, {"url": f"{self.address}/store/{identifier}?sig=signature{self.signature}"}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or every answer waits 40 ms for its second packet
    service: Service

    def handle_any(self):
        service, parts = self.service, urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with service.lock:
            service.requests.append((self.command, parts.path, dict(self.headers), parse_qs(parts.query)))
            action = service.fault(self.command, parts.path)
            if action == "cut":
                return self.hang_up()
            if isinstance(action, int):
                return self.reply(action, {"detail": "by order of the test"})
            if isinstance(action, tuple):
                return self.reply(action[0], {"detail": "by order of the test"}, action[1])
            if parts.path.startswith("/store/"):
                return self.store(parts.path.removeprefix("/store/"), action)
            if self.headers.get("Authorization") != f"Token {TOKEN}":
                return self.reply(401, {"detail": "Invalid token."})
            status, answer = service.answer(self.command, parts.path, parse_qs(parts.query), body)
        if action == "lost":
            return self.hang_up()
        if action == "garbage":
            return self.reply(200, b"<html>")
        return self.reply(status, answer)

    do_GET = do_POST = handle_any

    def hang_up(self):
        self.close_connection = True
        self.connection.shutdown(2)

    def reply(self, status, answer, headers=()):
        raw = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(raw)))
        if isinstance(answer, bytes) and self.service.direct:
            self.send_header("Content-Disposition", "attachment; filename=x")
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(raw)

    def store(self, identifier, action):
        content, first = self.service.content[identifier], 0
        requested = self.headers.get("Range")
        if requested and self.service.ranges:
            first = int(requested.removeprefix("bytes=").rstrip("-"))
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(content) - first))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if action == "half":
            self.wfile.write(content[first : first + (len(content) - first) // 2])
            return self.hang_up()
        return self.wfile.write(content[first:])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def service() -> Iterator[Service]:
    state = Service()
    handler = type("ServiceHandler", (Handler,), {"service": state})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.address = f"http://127.0.0.1:{listening.server_port}"
        try:
            yield state
        finally:
            listening.shutdown()
            thread.join()


@pytest.fixture
def connection(service) -> Connection:
    return Connection.resolve(host=service.address, token=TOKEN, project=PROJECT)


@pytest.fixture
def client(connection) -> Iterator[Client]:
    with Client(connection, patience=5.0) as made:
        yield made


@pytest.fixture(autouse=True)
def no_login(monkeypatch, tmp_path) -> None:
    """Nothing of the person who runs the tests is read."""
    for name in ("VALOHAI_TOKEN", "VALOHAI_HOST", "VALOHAI_PROJECT", "VALOHAI_PROJECT_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("VALOHAI_CONFIG_DIR", str(tmp_path / "vh"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    """Waits are short."""
    monkeypatch.setattr(client_module, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(client_module, "_LONGEST_WAIT", 0.05)
    monkeypatch.setattr(execution_module, "_LOOKS", (0.01, 0.02))
    monkeypatch.setattr(polling_module.Pace, "pause", lambda self: 0.01)
    monkeypatch.setattr(polling_module.Pace, "allows_events", lambda self, running=1: True)
