"""What can go wrong with Valohai, as part of the product's one exception tree.

Every message is one line (a failed execution adds its last log lines): what was asked, of whom, what to do.
"""

from collections.abc import Sequence
from typing import Any

from deeplab.errors import DeepLabError


class ValohaiError(DeepLabError):
    """The root of everything about Valohai."""


class NotConfigured(ValohaiError):
    """No token, no project, or a host that cannot be one."""


class Unreachable(ValohaiError):
    """No whole answer came.

    Attributes:
        sent: whether the request may have been received, and a write been done.
    """

    def __init__(self, message: str, *, sent: bool = True) -> None:
        super().__init__(message)
        self.sent = sent


class UnexpectedAnswer(ValohaiError):
    """An answer that is not what the API promises."""


class Refused(ValohaiError):
    """An answer with an error status.

    Attributes:
        status: the HTTP status.
        retry_after: seconds that the server asks to wait, if it does.
    """

    def __init__(self, message: str, *, status: int = 0, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class Unauthorized(Refused):
    """The token is missing, wrong or expired (401)."""


class Forbidden(Refused):
    """The token's user may not do that (403)."""


class NotFound(Refused):
    """There is no such object, or it belongs to others (404)."""


class Throttled(Refused):
    """Too many requests (429)."""


class ServerFailed(Refused):
    """The server or something before it failed (5xx); a write may have been done."""


class InvalidRequest(ValohaiError):
    """A parameter, an input or a step that valohai.yaml does not allow; nothing was sent."""


class PackageError(ValohaiError):
    """Code that cannot be handed over."""


class OutputMismatch(ValohaiError):
    """A file that did not arrive as the server describes it."""


class ExecutionError(ValohaiError):
    """An execution that gave no result.

    Attributes:
        lines: its last log lines, oldest first.
    """

    def __init__(self, message: str, lines: Sequence[str] = ()) -> None:
        super().__init__("\n".join([message, *(f"    {line}" for line in lines)]))
        self.lines = tuple(lines)


class ExecutionFailed(ExecutionError):
    """It ended with an error."""


class ExecutionStopped(ExecutionError):
    """It was stopped, by us or by somebody else."""


class ExecutionLost(ExecutionError):
    """The server does not know it any more."""


class LimitExceeded(ExecutionError):
    """It waited or ran for longer than was allowed, and was stopped."""


_ADVICE: dict[int, tuple[type[Refused], str]] = {
    401: (Unauthorized, "make a new token in the profile's settings, and set VALOHAI_TOKEN or run `vh login`"),
    403: (Forbidden, "ask the project's owner for the right, or check VALOHAI_PROJECT"),
    404: (NotFound, "check the id and the project, and that the token's user may see it"),
    429: (Throttled, "wait a little and try again"),
}


def refusal(what: str, status: int, body: Any, retry_after: float | None = None) -> Refused:
    """The exception for an answer with an error status.

    Args:
        what: the request and the host, such as ``GET /api/v0/projects/ at https://app.valohai.com``.
        status: the HTTP status, 300 or above.
        body: the answer, parsed where it is JSON, else its text.
        retry_after: seconds that the server asks to wait.
    """
    if status in _ADVICE:
        kind, advice = _ADVICE[status]
    elif status >= 500:
        kind, advice = ServerFailed, "try again later; the service itself has failed"
    elif status < 400:
        kind, advice = Refused, "set VALOHAI_HOST to the address that it redirects to"
    else:
        kind, advice = Refused, "correct the request"
    return kind(f"{what}: {status}, {reason(body)}; {advice}", status=status, retry_after=retry_after)


def reason(body: Any) -> str:
    """The text of an error answer, in one line: Django REST's shapes, plain text, or a page of HTML."""
    if isinstance(body, str):
        internal = "<!doctype html" in body.lower() or "<html" in body.lower()
        return "internal error" if internal else (" ".join(body.split())[:300] or "no reason given")
    if isinstance(body, dict):
        for name in ("non_field_errors", "detail", "error"):
            if body.get(name):
                return reason(body[name])
        if "message" in body:
            code = body.get("code")
            return f"{body['message']} (code: {code})" if code else str(body["message"])
        return "; ".join(f"{name}: {reason(value)}" for name, value in body.items()) or "no reason given"
    if isinstance(body, (list, tuple)):
        return "; ".join(reason(item) for item in body) or "no reason given"
    return "no reason given" if body is None else str(body)
