"""The files that an execution left: their addresses for the next one, and verified copies here."""

import hashlib
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import httpx

from deeplab.stage.manifest import sha256_of
from tasks.valohai.client import USER_AGENT, Client, back_off
from tasks.valohai.errors import OutputMismatch, Unreachable, ValohaiError
from tasks.valohai.records import Datum

_AT_ONCE = 4
_TRIES = 8
_REDIRECTS = 5
_TIMEOUT = httpx.Timeout(30.0, connect=10.0)
# Sizes and digests are those of the stored bytes.
_AS_STORED = {"Accept-Encoding": "identity"}
# Answers of a store that a new link, or a little patience, may change.
_EXPIRED, _PASSING = (401, 403, 404, 410), (408, 429, 500, 502, 503, 504)


def list_outputs(client: Client, execution_id: str) -> dict[str, Datum]:
    """An execution's files by name; of equal names the newest, without those whose content was removed."""
    rows = sorted(client.outputs(execution_id), key=lambda datum: datum.ctime)
    return {datum.name: datum for datum in rows if not datum.purged}


def download(client: Client, data: Iterable[Datum], folder: Path, *, at_once: int = _AT_ONCE) -> list[Path]:
    """Bring files into a folder, under their names, checked by size and SHA-256.

    A file that is there already with that content is left as it is.

    Args:
        client: of the project.
        data: which files.
        folder: where to; made if missing.
        at_once: how many at the same time.

    Raises:
        OutputMismatch: for content that is not what the service describes, or a name that leads out of the folder.
        ValohaiError: for files that cannot be had.
    """
    wanted = [(datum, _target(folder, datum)) for datum in data]
    with _store_client(client) as http, ThreadPoolExecutor(at_once, thread_name_prefix="download") as pool:
        abandoned = threading.Event()
        tasks = [pool.submit(_Download(client, http, datum, path, abandoned).run) for datum, path in wanted]
        try:
            done, _ = wait(tasks, return_when=FIRST_EXCEPTION)
            failed = [task for task in done if task.exception() is not None]
            if failed:
                failed[0].result()
        finally:
            abandoned.set()
            for task in tasks:
                task.cancel()
    return [path for _, path in wanted]


def _target(folder: Path, datum: Datum) -> Path:
    name = PurePosixPath(datum.name)
    if name.is_absolute() or not name.parts or ".." in name.parts or "\\" in datum.name or "\0" in datum.name:
        raise OutputMismatch(f"{datum.link}: its name {datum.name!r} leads out of {folder}; it was not downloaded")
    return folder.joinpath(*name.parts)


@contextmanager
def _store_client(client: Client) -> Iterator[httpx.Client]:
    """A client for the object store: it has no token, and follows no redirect without being asked."""
    headers = {"User-Agent": f"{USER_AGENT} (downloader)", **_AS_STORED}
    with httpx.Client(headers=headers, timeout=_TIMEOUT, verify=client.connection.tls()) as http:
        yield http


class _Abandoned(ValohaiError):
    """Another file has failed, or the caller was interrupted."""


class _Cut(Exception):
    """The content stopped coming, or did not come at all; another try may bring it."""


@dataclass
class _Received:
    """What has come so far."""

    size: int = 0
    sha256: Any = field(default_factory=hashlib.sha256)


class _Download:
    """One file: tried again where it was cut off, with a new link each time."""

    def __init__(
        self, client: Client, http: httpx.Client, datum: Datum, path: Path, abandoned: threading.Event
    ) -> None:
        self._client, self._http, self._datum, self._path = client, http, datum, path
        self._abandoned = abandoned
        self._received = _Received()

    def run(self) -> None:
        if self._is_there():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_name(f".tmp-{self._datum.id[:36]}-{self._path.name}")
        try:
            with temporary.open("wb") as file:
                self._fill(file)
            self._verify()
            temporary.replace(self._path)
        finally:
            temporary.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        size, digest = self._datum.size, self._datum.sha256
        if size is None or digest is None or not self._path.is_file() or self._path.stat().st_size != size:
            return False
        return sha256_of(self._path) == digest.lower()

    def _fill(self, file: Any) -> None:
        before = 0
        attempt = 0
        while True:
            try:
                self._receive(file)
                return
            except _Cut as problem:
                # Only tries that bring nothing count: a large file over a bad line goes on.
                attempt = 1 if self._received.size > before else attempt + 1
                before = max(before, self._received.size)
                if attempt >= _TRIES:
                    raise Unreachable(
                        f"{self._name()}: the store does not hand it out ({problem}); try again later", sent=False
                    ) from None
                self._rest(back_off(attempt))

    def _rest(self, seconds: float) -> None:
        if self._abandoned.wait(seconds):
            raise _Abandoned("the download was abandoned")

    def _receive(self, file: Any) -> None:
        link = self._client.download_link(self._datum.id)
        try:
            response = self._client.send_content(self._own_request()) if link is None else self._open(link)
            try:
                self._take(response, file)
            finally:
                response.close()
        except httpx.HTTPError as error:
            # Its text may hold the link, which is a secret while it lives.
            raise _Cut(type(error).__name__) from None

    def _range(self) -> dict[str, str]:
        return {"Range": f"bytes={self._received.size}-"} if self._received.size else {}

    def _own_request(self) -> httpx.Request:
        request = self._client.content_request(self._datum.id)
        request.headers.update({**_AS_STORED, **self._range()})
        return request

    def _open(self, link: str) -> httpx.Response:
        for _ in range(_REDIRECTS):
            request = signed_request(self._http, link, self._range())
            response = self._http.send(request, stream=True, follow_redirects=False)
            if not response.has_redirect_location:
                return response
            link = str(httpx.URL(link).join(response.headers["location"]))
            response.close()
        raise _Cut("too many redirects")

    def _take(self, response: httpx.Response, file: Any) -> None:
        status = response.status_code
        if status in (*_EXPIRED, *_PASSING):
            raise _Cut(f"status {status}")
        if status == 416 and self._received.size:
            self._start_again(file)
            raise _Cut("status 416")
        if status >= 300:
            raise Unreachable(f"{self._name()}: the store answers with status {status}", sent=False)
        if status != 206 or not response.headers.get("content-range", "").startswith(f"bytes {self._received.size}-"):
            self._start_again(file)
        for block in response.iter_raw():
            if self._abandoned.is_set():
                raise _Abandoned("the download was abandoned")
            file.write(block)
            self._received.sha256.update(block)
            self._received.size += len(block)
        if self._datum.size is not None and self._received.size < self._datum.size:
            raise _Cut(f"{self._received.size} of {self._datum.size} bytes came")

    def _start_again(self, file: Any) -> None:
        file.seek(0)
        file.truncate()
        self._received = _Received()

    def _verify(self) -> None:
        size, digest = self._datum.size, self._datum.sha256
        if size is not None and self._received.size != size:
            raise OutputMismatch(f"{self._name()}: {self._received.size} bytes came, {size} were promised; try again")
        if digest is not None and self._received.sha256.hexdigest() != digest.lower():
            raise OutputMismatch(f"{self._name()}: its content is not what its sha256 promises; try again")

    def _name(self) -> str:
        return f"{self._datum.name} ({self._datum.link})"


def signed_request(http: httpx.Client, link: str, headers: dict[str, str]) -> httpx.Request:
    """A request for a signed link that shows its query, which is the signature, to nobody but the store.

    httpx logs the address of every request; so the address leaves the query out, and the target, which is sent, has it.
    """
    url = httpx.URL(link)
    return http.build_request("GET", url.copy_with(query=None), headers=headers, extensions={"target": url.raw_path})


def addresses(data: Sequence[Datum]) -> list[str]:
    """The files as the input of another execution."""
    return [datum.link for datum in data]
