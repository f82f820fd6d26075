"""The API of Valohai over HTTP: one method a call, records as answers, one exception tree.

Reads are tried again for as long as the client is patient. Writes are sent once: who writes decides, by
looking, whether an unanswered write was done (``execution.submit_once``, ``package.ensure_commit``).
"""

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
from pydantic import ValidationError
from tenacity import RetryCallState, Retrying, retry_if_exception, stop_before_delay

from deeplab.version import __version__
from tasks.valohai.connection import Connection
from tasks.valohai.errors import (
    NotConfigured,
    NotFound,
    Refused,
    ServerFailed,
    Throttled,
    UnexpectedAnswer,
    Unreachable,
    ValohaiError,
    refusal,
)
from tasks.valohai.records import Commit, Datum, Environment, EventPage, Execution, Job, Project, Record

USER_AGENT = f"deeplab-prefect/{__version__}"
API = "/api/v0"
# Seconds. An upload may take long to be taken in: the server reads and checks the package before it answers.
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_UPLOAD_TIMEOUT = httpx.Timeout(600.0, connect=10.0)
# Seconds between two tries: doubled each time, up to the longest; each is shortened at random by up to a half.
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 20.0
# A server that asks for more patience than this gets another request all the same.
_LONGEST_RETRY_AFTER = 300.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_patience: ContextVar[float | None] = ContextVar("patience", default=None)

# Long parts of a job that nobody reads here.
_UNREAD = "metadata,events,outputs"

R = TypeVar("R", bound=Record)
J = TypeVar("J", bound=Job)


class Client:
    """A client of one project.

    Args:
        connection: where and as whom.
        patience: seconds over which a read is tried again.
        transport: replaces the network in tests.
    """

    def __init__(
        self, connection: Connection, *, patience: float = 300.0, transport: httpx.BaseTransport | None = None
    ) -> None:
        self.connection = connection
        self._patience = patience
        self._clock = timedelta(0)
        self._http = httpx.Client(
            base_url=connection.host,
            headers={"User-Agent": USER_AGENT, "Accept": "application/json"},
            timeout=_TIMEOUT,
            verify=connection.tls(),
            transport=transport,
        )
        self._http.headers["Authorization"] = f"Token {connection.token.get_secret_value()}"

    def __repr__(self) -> str:
        return f"Client({self.connection.host}, project {self.connection.project})"

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @contextmanager
    def patient(self, seconds: float) -> Iterator[None]:
        """Within this block, and in this thread, reads are tried again over at most so many seconds."""
        token = _patience.set(seconds)
        try:
            yield
        finally:
            _patience.reset(token)

    # The server's answers as records.

    @cached_property
    def project(self) -> Project:
        """The connection's project, found by its id or its exact name.

        Raises:
            NotConfigured: when no project, or more than one, has the name.
        """
        wanted = self.connection.project
        if _UUID.fullmatch(wanted.lower()):
            return self._record(Project, self._get(f"{API}/projects/{wanted.lower()}/"))
        rows = list(self._pages(f"{API}/projects/", {"limit": 200}))
        found = [self._record(Project, row) for row in rows if isinstance(row, dict) and row.get("name") == wanted]
        if len(found) != 1:
            names = ", ".join(sorted(str(row.get("name")) for row in rows)[:10]) or "none"
            raise NotConfigured(
                f"VALOHAI_PROJECT {wanted!r}: {len(found) or 'no'} projects have this name "
                f"(there are: {names}); give the project's id"
            )
        return found[0]

    def commits(self) -> list[Commit]:
        """The git commits that the project knows, newest first."""
        rows = self._pages(f"{API}/commits/", {"project": self.project.id, "adhoc": "false", "limit": 1000})
        return sorted((self._record(Commit, row) for row in rows), key=lambda commit: commit.commit_time, reverse=True)

    def commit(self, identifier: str) -> Commit | None:
        """One commit of the project, or None."""
        try:
            answer = self._get(f"{API}/commits/{quote(identifier)}/", {"project": self.project.id})
        except NotFound:
            return None
        return self._record(Commit, answer) if isinstance(answer, dict) and answer.get("identifier") else None

    def fetch(self) -> list[str]:
        """Let the project fetch its git repository; returns what went wrong with it."""
        answer = self._post(f"{API}/projects/{self.project.id}/fetch/", again=True, timeout=_UPLOAD_TIMEOUT)
        errors = answer.get("errors") if isinstance(answer, dict) else None
        return [str(error) for error in errors or []]

    def import_package(self, package: Path, *, description: str, yaml_path: str) -> Commit:
        """Upload an ad-hoc package (a gzipped tar)."""
        with package.open("rb") as data:
            parts: list[tuple[str, Any]] = [
                ("data", ("data.tgz", data, "application/gzip")),
                ("description", (None, description)),
                ("yaml_path", (None, yaml_path)),
            ]
            path = f"{API}/projects/{self.project.id}/import-package/"
            return self._record(Commit, self._post(path, files=parts, timeout=_UPLOAD_TIMEOUT))

    def environments(self) -> list[Environment]:
        """The machine types that the project's executions may ask for."""
        rows = self._pages(f"{API}/environments/", {"limit": 1000})
        return [self._record(Environment, row) for row in rows]

    def create(self, kind: type[J], payload: Mapping[str, Any]) -> J:
        """Create an execution, pipeline or task, unconditionally; see ``execution.submit_once``."""
        return self._record(kind, self._post(f"{API}/{kind.collection}/", json=dict(payload)))

    def job(self, kind: type[J], job_id: str) -> J:
        """An execution, pipeline or task as it is now."""
        return self._record(kind, self._get(f"{API}/{kind.collection}/{quote(job_id)}/", {"exclude": _UNREAD}))

    def jobs(self, kind: type[J], *, limit: int = 1000, **filters: str) -> Iterator[J]:
        """The project's executions, pipelines or tasks, newest first, without deleted ones.

        Args:
            kind: which.
            limit: at most so many.
            **filters: name -> value, such as ``step`` or ``task`` of an execution.
        """
        fixed = {"project": self.project.id, "deleted": "false", "ordering": "-counter", "exclude": _UNREAD}
        rows = self._pages(f"{API}/{kind.collection}/", {**fixed, "limit": min(limit, 200), **filters})
        for row in itertools.islice(rows, limit):
            yield self._record(kind, row)

    def stop(self, job: Job) -> None:
        """Ask a job to stop; nothing happens to one that has ended."""
        self._post(job.urls.get("stop") or f"{API}/{job.collection}/{quote(job.id)}/stop/", again=True)

    def execution(self, execution_id: str) -> Execution:
        """One execution as it is now."""
        return self.job(Execution, execution_id)

    def executions(self, *, step: str | None = None, limit: int = 1000) -> Iterator[Execution]:
        """The project's executions, newest first, without deleted ones."""
        return self.jobs(Execution, limit=limit, **({} if step is None else {"step": step}))

    def events(self, execution_id: str, limit: int) -> EventPage:
        """The newest ``limit`` lines of an execution's log; 0: all of them."""
        answer = self._get(f"{API}/executions/{quote(execution_id)}/events/", {"limit": limit})
        return self._record(EventPage, answer)

    def outputs(self, execution_id: str) -> list[Datum]:
        """The files that an execution has left so far."""
        rows = self._pages(f"{API}/data/", {"output_execution": execution_id, "limit": 1000})
        return [self._record(Datum, row) for row in rows]

    def download_link(self, datum_id: str) -> str | None:
        """A short-lived address of a file's content; None: the server hands the content out itself."""
        path = f"{API}/data/{quote(datum_id)}/download/"
        return self._retrying(lambda: self._download_link(path))

    def content_request(self, datum_id: str) -> httpx.Request:
        """The request for a file's content where there is no link."""
        return self._http.build_request("GET", f"{API}/data/{quote(datum_id)}/download/")

    def send_content(self, request: httpx.Request) -> httpx.Response:
        """Send it; the answer's body is still to be read, and to be closed."""
        return self._http.send(request, stream=True)

    def now(self) -> datetime:
        """The server's time."""
        return datetime.now(timezone.utc) + self._clock

    # Requests.

    def _get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self._retrying(lambda: self._send("GET", path, params=query))

    def _post(self, path: str, *, again: bool = False, **content: Any) -> Any:
        """POST once; ``again``: as often as a read, for calls whose repetition changes nothing."""
        if again:
            return self._retrying(lambda: self._send("POST", path, **content))
        return self._send("POST", path, **content)

    def _retrying(self, send: Any) -> Any:
        patience = _patience.get()
        stop = stop_before_delay(self._patience if patience is None else patience)
        retrying = Retrying(retry=retry_if_exception(passing), wait=_wait, stop=stop, reraise=True)
        return retrying(send)

    def _send(self, method: str, path: str, **content: Any) -> Any:
        url, what = self._own(path), self._what(method, path)
        try:
            response = self._http.request(method, url, **content)
        except httpx.HTTPError as error:
            raise self._unreachable(what, error) from None
        self._remember_clock(response)
        return self._body(what, response)

    def _body(self, what: str, response: httpx.Response) -> Any:
        if response.status_code < 300:
            if not response.content:
                return None
            try:
                return response.json()
            except ValueError:
                raise UnexpectedAnswer(f"{what}: the answer is not JSON; check VALOHAI_HOST") from None
        raise self._refusal(what, response)

    def _refusal(self, what: str, response: httpx.Response) -> Refused:
        try:
            body = response.json()
        except ValueError:
            body = self._without_token(response.text)
        error = refusal(what, response.status_code, body, _retry_after(response))
        error.args = (self._without_token(str(error)),)
        return error

    def _without_token(self, text: str) -> str:
        return text.replace(self.connection.token.get_secret_value(), "***")

    def _unreachable(self, what: str, error: httpx.HTTPError) -> Unreachable:
        # These happen before a byte of the request is on its way; after any other it may have been done.
        sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout))
        problem = self._without_token(str(error)) or type(error).__name__
        return Unreachable(f"{what}: no answer ({problem}); check the network and VALOHAI_HOST", sent=sent)

    def _what(self, method: str, path: str) -> str:
        return f"{method} {urlsplit(path).path} at {self.connection.host}"

    def _own(self, address: str) -> str:
        """An address of this host; the token goes nowhere else."""
        if "://" not in address and not address.startswith("//"):
            return address
        parts = urlsplit(address)
        if f"{parts.scheme}://{parts.netloc.lower()}" != self.connection.host:
            raise UnexpectedAnswer(
                f"{self.connection.host}: the server refers to {parts.scheme}://{parts.hostname}, where its token must "
                "not go; set VALOHAI_HOST to the address that the server knows itself by"
            )
        return address

    def _pages(self, path: str, query: Mapping[str, Any]) -> Iterator[Any]:
        """The rows of a list: by ``next`` where the server gives it, else until a page is shorter than asked for."""
        offset, limit = 0, int(query["limit"])
        answer = self._get(path, query)
        while True:
            if isinstance(answer, list):
                yield from answer
                return
            rows = answer.get("results") if isinstance(answer, dict) else None
            if not isinstance(rows, list):
                raise UnexpectedAnswer(f"{self._what('GET', path)}: no list came; check VALOHAI_HOST")
            yield from rows
            offset += len(rows)
            if answer.get("next"):
                answer = self._get(answer["next"])
            elif "next" not in answer and len(rows) >= limit:
                answer = self._get(path, {**query, "offset": offset})
            else:
                return

    def _record(self, kind: type[R], answer: Any) -> R:
        try:
            return kind.model_validate(answer)
        except ValidationError as error:
            fields = ", ".join(sorted({".".join(map(str, item["loc"])) or "all of it" for item in error.errors()}))
            raise UnexpectedAnswer(
                f"{self.connection.host}: an answer that should be a {kind.__name__.lower()} is none "
                f"(wrong: {fields}); check VALOHAI_HOST"
            ) from None

    def _download_link(self, path: str) -> str | None:
        what = self._what("GET", path)
        try:
            with self._http.stream("GET", path) as response:
                if response.status_code in (301, 302, 303, 307, 308) and "location" in response.headers:
                    return str(response.headers["location"])
                if response.status_code < 300 and "attachment" in response.headers.get("content-disposition", ""):
                    return None
                response.read()
        except httpx.HTTPError as error:
            raise self._unreachable(what, error) from None
        body = self._body(what, response)
        if not isinstance(body, dict) or not isinstance(body.get("url"), str):
            raise UnexpectedAnswer(f"{what}: the answer holds no address to download from")
        return str(httpx.URL(self.connection.host).join(body["url"]))

    def _remember_clock(self, response: httpx.Response) -> None:
        try:
            self._clock = parsedate_to_datetime(response.headers["date"]) - datetime.now(timezone.utc)
        except (KeyError, ValueError, TypeError):
            return  # a server without a usable clock: ours will do


def passing(error: BaseException) -> bool:
    """Whether the same request may well succeed a little later."""
    return isinstance(error, (Unreachable, Throttled, ServerFailed))


def doubtful(error: ValohaiError) -> bool:
    """Whether a write that ended so may have been done all the same."""
    if isinstance(error, Unreachable):
        return error.sent
    return isinstance(error, (ServerFailed, UnexpectedAnswer))


def back_off(attempt: int, error: BaseException | None = None) -> float:
    """Seconds to wait after the ``attempt``-th failure (the first is 1): what the server asks for, else ever longer."""
    asked = error.retry_after if isinstance(error, Refused) else None
    if asked is not None:
        return min(asked, _LONGEST_RETRY_AFTER) + random.uniform(0, 0.2)
    longest = min(_LONGEST_WAIT, _FIRST_WAIT * 2 ** min(attempt - 1, 16))
    return random.uniform(longest / 2, longest)


def _wait(state: RetryCallState) -> float:
    return back_off(state.attempt_number, state.outcome.exception() if state.outcome else None)


def _retry_after(response: httpx.Response) -> float | None:
    """Seconds that the answer asks to wait: a number, or a date."""
    text = response.headers.get("retry-after", "")
    try:
        return max(0.0, float(text))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(text) - datetime.now(timezone.utc)).total_seconds())
    except (ValueError, TypeError):
        return None
