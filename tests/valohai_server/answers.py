"""What every handler needs: the call, errors in Django REST's shapes, pages."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from email.message import Message
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, QueryParams

if TYPE_CHECKING:
    from tests.valohai_server.server import Server

Handler = Callable[..., Any]


class ApiError(Exception):
    """An answer of status 400 or more."""

    def __init__(self, status: int, body: Any) -> None:
        super().__init__(f"{status}: {body}")
        self.status, self.body = status, body


class Created(dict[str, Any]):
    """An answer of status 201."""


def not_found() -> ApiError:
    return ApiError(404, {"detail": "Not found."})


def invalid(field: str, message: str, code: str = "invalid") -> ApiError:
    """A value that is refused; ``field`` may be ``non_field_errors``."""
    return ApiError(400, {field: [{"message": message, "code": code}]})


@dataclass(frozen=True)
class Call:
    """One request, read whole."""

    server: "Server"
    method: str
    path: str
    query: QueryParams
    headers: Headers
    content: bytes
    queue_delay: float = 0.0

    @property
    def host(self) -> str:
        """``http://HOST:PORT`` as the client spelt it: it sends its token to no other."""
        return f"http://{self.headers.get('host', '127.0.0.1')}"

    def body(self) -> dict[str, Any]:
        """The fields of a JSON or form body; a file of a multipart body is bytes."""
        kind = self.headers.get("content-type", "")
        if kind.startswith("multipart/form-data"):
            return _parts(kind, self.content)
        if kind.startswith("application/x-www-form-urlencoded"):
            return {name: values[-1] for name, values in parse_qs(self.content.decode()).items()}
        if not self.content:
            return {}
        try:
            fields = json.loads(self.content)
        except ValueError as error:
            raise ApiError(400, {"detail": f"JSON parse error - {error}"}) from None
        if not isinstance(fields, dict):
            raise invalid("non_field_errors", "Invalid data. Expected a dictionary.")
        return fields

    def flag(self, name: str) -> bool:
        return self.query.get(name, "").lower() in ("true", "1", "yes")

    def names(self, name: str) -> set[str]:
        """A comma-separated list, as ``exclude`` and ``include`` are."""
        return {part.strip() for value in self.query.getlist(name) for part in value.split(",")}

    def number(self, name: str, default: int) -> int:
        try:
            return int(self.query.get(name, default))
        except ValueError:
            raise invalid(name, "Enter a whole number.") from None


def page(call: Call, rows: Iterable[Any], render: Callable[[Any], Any], default: int = 100) -> dict[str, Any]:
    """The asked part of ``rows`` with links to its neighbours."""
    rows = list(rows)
    longest = call.server.settings.max_page or len(rows) + 1
    limit, offset = max(min(call.number("limit", default), longest), 1), max(call.number("offset", 0), 0)

    def link(start: int) -> str | None:
        if start < 0 or start >= len(rows):
            return None
        rest = [(name, value) for name, value in call.query.multi_items() if name not in ("limit", "offset")]
        return f"{call.host}{call.path}?{urlencode([*rest, ('limit', limit), ('offset', start)])}"

    answer = {
        "count": len(rows),
        "next": link(offset + limit),
        "previous": link(max(offset - limit, 0)) if offset else None,
        "results": [render(row) for row in rows[offset : offset + limit]],
    }
    if call.flag("no_count"):
        del answer["count"]
    return answer


def ordered(call: Call, rows: list[dict[str, Any]], default: str) -> list[dict[str, Any]]:
    """``rows`` as ``ordering`` asks (``-counter``: largest first)."""
    for key in reversed(call.query.get("ordering", default).split(",")):
        name = key.lstrip("-")
        rows = sorted(rows, key=lambda row: (row.get(name) is not None, row.get(name)), reverse=key.startswith("-"))
    return rows


def wanted(call: Call, rows: list[dict[str, Any]], *names: str) -> list[dict[str, Any]]:
    """Rows that the filters ``names`` and ``deleted`` leave; a filter given twice means either."""
    deleted = call.flag("deleted")
    rows = [row for row in rows if bool(row.get("deleted")) == deleted]
    for name in names:
        values = call.query.getlist(name)
        if values:
            rows = [row for row in rows if str(row.get(name)) in values]
    return rows


def _parts(kind: str, content: bytes) -> dict[str, Any]:
    header = Message()
    header["content-type"] = kind
    boundary = header.get_param("boundary")
    if not isinstance(boundary, str):
        raise ApiError(400, {"detail": "Multipart form parse error - Invalid boundary"})
    fields: dict[str, Any] = {}
    for piece in (b"\r\n" + content).split(b"\r\n--" + boundary.encode())[1:]:
        head, separator, body = piece.partition(b"\r\n\r\n")
        if not separator:
            continue
        part = Message()
        for line in head.decode().strip().splitlines():
            name, _, value = line.partition(":")
            part[name] = value.strip()
        field = part.get_param("name", header="content-disposition")
        is_file = part.get_param("filename", header="content-disposition") is not None
        fields[str(field)] = body if is_file else body.decode()
    return fields
