"""The ASGI application: reads a request whole, applies faults, checks the token, calls the handler."""

import asyncio
import hmac
import re
import sys
import time
import traceback
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Receive, Scope, Send

# Imported for the routes that they register.
from tests.valohai_server import account, commits, control, data, executions, pipelines, stores, tasks  # noqa: F401
from tests.valohai_server.answers import ApiError, Call, Created, not_found
from tests.valohai_server.faults import Fault
from tests.valohai_server.routing import resolve
from tests.valohai_server.server import Server

PUBLIC = ("/api/v0/get-token/",)


class App:
    """Valohai's API at /api/v0/, bytes at /blobs/, the tests' own at /control/."""

    def __init__(self, server: Server) -> None:
        self.server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        request = Request(scope, receive)
        content = await request.body()
        line = f"{request.method} {request.url.path}" + (f"?{request.url.query}" if request.url.query else "")
        controlled = request.url.path.startswith("/control/")
        fault = None if controlled else self.server.faults.take(line)
        entry = {"time": time.time(), "request": line, "fault": fault.kind if fault else None, "status": None}
        if not controlled:
            self.server.requests.append(entry)
        if fault and fault.kind == "refuse":
            await _hang_up(receive, send)
            return
        response = await self._respond(request, content, fault)
        entry["status"] = response.status_code
        if fault and fault.kind == "lost-answer":
            await _hang_up(receive, send)
        elif fault and fault.kind == "cut":
            await response(scope, receive, _cutter(send, fault.after))
            await _hang_up(receive, send)
        else:
            await response(scope, receive, send)

    async def _respond(self, request: Request, content: bytes, fault: Fault | None) -> Response:
        if fault and fault.kind.isdigit():
            headers = {} if fault.retry_after is None else {"Retry-After": f"{fault.retry_after:g}"}
            return JSONResponse({"detail": f"Fault {fault.kind}."}, int(fault.kind), headers)
        if fault and fault.kind == "slow":
            await asyncio.sleep(fault.seconds or 0)
        delay = (fault.seconds or 0.0) if fault and fault.kind == "slow-queue" else 0.0
        path = request.url.path
        call = Call(self.server, request.method, path, request.query_params, request.headers, content, delay)
        try:
            return await run_in_threadpool(self._answer, call)
        except ApiError as error:
            headers = {"WWW-Authenticate": "Token"} if error.status == 401 else {}
            return JSONResponse(error.body, error.status, headers)
        except Exception:
            traceback.print_exc(file=sys.stderr)
            return JSONResponse({"detail": "Internal error."}, 500)

    def _answer(self, call: Call) -> Response:
        if call.path.startswith("/control/"):
            return _response(control.handle(call))
        if match := re.fullmatch("/blobs/([^/]+)/.*", call.path):
            return data.serve_blob(call, match[1])
        if match := re.fullmatch("/agent/([^/]+)/status-detail/", call.path):
            if self.server.store.get("execution", match[1]) is None:
                raise not_found()
            self.server.store.update("execution", match[1], status_detail=call.body().get("status_detail"))
            return _response({"ok": True})
        if not call.path.startswith("/api/v0/"):
            raise not_found()
        if call.path not in PUBLIC:
            self._authenticate(call)
        handler, arguments = resolve(call.method, call.path)
        return _response(handler(call, **arguments))

    def _authenticate(self, call: Call) -> None:
        kind, _, token = call.headers.get("authorization", "").partition(" ")
        if kind != "Token":
            raise ApiError(401, {"detail": "Authentication credentials were not provided."})
        if not hmac.compare_digest(token, self.server.user["token"]):
            raise ApiError(401, {"detail": "Invalid token."})


def _response(answer: Any) -> Response:
    if isinstance(answer, Response):
        return answer
    if answer is None:
        return Response(status_code=204)
    return JSONResponse(answer, 201 if isinstance(answer, Created) else 200)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _hang_up(receive: Receive, send: Send) -> None:
    """Break the connection; ASGI has no word for it, uvicorn's transport does."""
    send.__self__.transport.abort()  # type: ignore[attr-defined]
    while (await receive())["type"] != "http.disconnect":
        pass


def _cutter(send: Send, share: float) -> Send:
    """A ``send`` that lets the head and a share of the body through."""

    left: list[int] = []

    async def cut(message: Message) -> None:
        if message["type"] == "http.response.start":
            length = next((int(value) for name, value in message["headers"] if name == b"content-length"), 0)
            left.append(int(length * share))
            await send(message)
        elif message["type"] == "http.response.body" and left and left[0] > 0:
            body = message.get("body", b"")[: left[0]]
            left[0] -= len(body)
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(0.01)

    return cut
