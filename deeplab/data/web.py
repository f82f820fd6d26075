"""A file behind http(s): looked up, then read in ranges that are all of one version."""

import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    ResponseError,
    SSLError,
)
from urllib3.exceptions import (
    TimeoutError as NoAnswer,
)

from deeplab.data.origin import Busy, Interrupted, Replaced
from deeplab.errors import FetchError

# Seconds without a byte. A silent connection is given up soon, since going on over another costs next to nothing.
CONNECT_TIMEOUT, READ_TIMEOUT = 15.0, 15.0
_REDIRECTS = 10
# Statuses that pass: too early, too many, and a service that is busy, restarting or behind a broken gateway.
_PASSING = {408, 425, 429, 500, 502, 503, 504}

Request = tuple[str, Mapping[str, str]]


class Refused(FetchError):
    """A request that the server will not answer however often it is asked.

    Attributes:
        status: the HTTP status.
        code: the name that Azure gives the reason, or nothing.
    """

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


@dataclass(frozen=True)
class Found:
    """What a look-up told.

    Attributes:
        size: length in bytes, or None.
        etag: the ETag header, or nothing.
        modified: the Last-Modified header, or nothing.
        ranges: whether the server sends ranges.
        md5: the MD5 that Azure keeps with a blob: base64, or nothing.
    """

    size: int | None
    etag: str
    modified: str
    ranges: bool
    md5: str

    @property
    def version(self) -> dict[str, str]:
        """What tells this content from another of the same length, if anything."""
        return {"ETag": self.etag} if self.etag else {"Last-Modified": self.modified} if self.modified else {}

    @property
    def condition(self) -> dict[str, str]:
        """The request header that demands this very content."""
        # A weak ETag (W/"…") may stand for other bytes of the same meaning, and no condition accepts it.
        if self.etag and not self.etag.startswith("W/"):
            return {"If-Match": self.etag}
        return {"If-Unmodified-Since": self.modified} if self.modified else {}


class WebFile:
    """A file behind an address.

    Args:
        request: called for every request; the address, which may carry a signature, and headers.
        shown: the address without credentials.
    """

    def __init__(self, request: Callable[[], Request], shown: str) -> None:
        self._request, self._shown = request, shown
        self._pool: urllib3.PoolManager | None = None

    def look_up(self) -> Found:
        """Ask for the file's first byte: unlike HEAD, that is allowed wherever reading is.

        Raises:
            Refused: if there is no such file, or it may not be read.
            Interrupted: if the server does not answer, or cannot now.
        """
        response = self._get({"Range": "bytes=0-0"})
        headers = response.headers
        response.close()
        ranges, plain = response.status != 200, "Content-Encoding" not in headers
        total = headers.get("Content-Range", "").rpartition("/")[2] if ranges else headers.get("Content-Length", "")
        return Found(
            size=int(total) if total.isdigit() and plain else None,
            etag=headers.get("ETag", ""),
            modified=headers.get("Last-Modified", ""),
            ranges=ranges and plain,
            # Content-MD5 would be that of the one byte.
            md5=headers.get("x-ms-blob-content-md5", ""),
        )

    def open(self, found: Found, start: int, stop: int | None) -> "_Body":
        """Read from a byte up to another, or, with None, everything.

        Raises:
            Replaced: if the content is no longer the one found.
            Refused: if it may not be read any more.
            Interrupted: if the server does not answer, or cannot now.
        """
        if stop is None:
            return _Body(self._get({}), self._shown)
        response = self._get({"Range": f"bytes={start}-{stop - 1}", **found.condition})
        if response.status == 200 and (start, stop) == (0, found.size) and self._is_whole(response, found):
            return _Body(response, self._shown)  # a range of everything may be answered as if none was asked for
        same = all(response.headers.get(name, mark) == mark for name, mark in found.version.items())
        if not same or response.headers.get("Content-Range") != f"bytes {start}-{stop - 1}/{found.size}":
            response.close()
            raise Replaced(self._shown)
        return _Body(response, self._shown)

    def _is_whole(self, response: urllib3.BaseHTTPResponse, found: Found) -> bool:
        headers = response.headers
        same = all(headers.get(name, mark) == mark for name, mark in found.version.items())
        return same and "Content-Encoding" not in headers and headers.get("Content-Length") == str(found.size)

    def _get(self, conditions: Mapping[str, str]) -> urllib3.BaseHTTPResponse:
        url, headers = self._request()
        try:
            if self._pool is None:
                self._pool = _pool(url)
            response = self._pool.request(
                "GET",
                url,
                # A range counts bytes as they travel: they must not be compressed on the way.
                headers={"Accept-Encoding": "identity", **_basic(url), **headers, **conditions},
                timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT, read=READ_TIMEOUT),
                retries=urllib3.Retry(connect=0, read=0, status=0, other=0, total=None, redirect=_REDIRECTS),
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, LocationValueError) as error:
            raise _failure(self._shown, error) from None
        if response.status in (200, 206) or (response.status == 416 and conditions.get("Range") == "bytes=0-0"):
            return response
        response.close()
        raise self._refusal(response.status, response.headers)

    def _refusal(self, status: int, headers: Mapping[str, str]) -> FetchError:
        code = headers.get("x-ms-error-code", "")
        told = f"{status} {code}".strip()
        if status in (412, 416):
            return Replaced(self._shown)
        if status in _PASSING:
            return Busy(f"{self._shown}: the server is busy or broken ({told})", _pause(headers))
        if status in (404, 410):
            return Refused(f"{self._shown}: no such file; check the address", status, code)
        reason = f"cannot be read ({told}); check address and credentials"
        return Refused(f"{self._shown}: {reason}", status, code)


class _Body:
    """The content of a response, whose failures may pass."""

    def __init__(self, response: urllib3.BaseHTTPResponse, shown: str) -> None:
        self._response, self._shown = response, shown

    def read(self, count: int, /) -> bytes:
        try:
            return self._response.read1(count, decode_content=False)
        except (HTTPError, OSError, ValueError, AttributeError) as error:
            # The last two: closed by another thread in the middle of a read.
            raise _failure(self._shown, error) from None

    def close(self) -> None:
        with suppress(ValueError, RuntimeError, OSError):
            self._response.shutdown()
        self._response.close()


def _pool(url: str) -> urllib3.PoolManager:
    """Connections, through the proxy that the environment names for such addresses."""
    parts = urlsplit(url)
    proxy = urllib.request.getproxies().get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(parts.hostname or ""):
        return urllib3.PoolManager(maxsize=8)
    proxy = proxy if "://" in proxy else f"http://{proxy}"
    return urllib3.ProxyManager(proxy, maxsize=8, proxy_headers=_basic(proxy, "proxy-authorization"))


def _basic(url: str, header: str = "authorization") -> dict[str, str]:
    """The header for a name and password in an address."""
    auth = urllib3.util.parse_url(url).auth
    if not auth:
        return {}
    return {header: urllib3.make_headers(basic_auth=unquote(auth))["authorization"]}


def _pause(headers: Mapping[str, str]) -> float | None:
    """Seconds that Retry-After asks for, which may be a number or a date."""
    asked = headers.get("Retry-After", "")
    if asked.isdigit():
        return float(asked)
    try:
        when = parsedate_to_datetime(asked)
        sent = parsedate_to_datetime(headers.get("Date", ""))
    except ValueError:
        return None
    return max(0.0, (when - sent).total_seconds())


def _failure(shown: str, error: Any) -> FetchError:
    """An error for the person: without the address that the libraries put into theirs, for it may be signed."""
    cause = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(cause, LocationValueError):
        return FetchError(f"{shown}: not a web address; check it")
    if isinstance(cause, ResponseError):
        return FetchError(f"{shown}: leads nowhere (too many redirections); check the address")
    if isinstance(cause, SSLError):
        return FetchError(f"{shown}: cannot be read (no trustworthy connection: {cause}); check address and clock")
    if isinstance(cause, NameResolutionError):
        reason = "no such host"
    elif isinstance(cause, NoAnswer) and not isinstance(cause, NewConnectionError):
        reason = "the server is silent"
    else:
        system = cause if isinstance(cause, OSError) else getattr(cause, "__cause__", None)
        reason = getattr(system, "strerror", None) or "the connection was lost"
    return Interrupted(f"{shown}: cannot be read ({reason}); check address and network")
