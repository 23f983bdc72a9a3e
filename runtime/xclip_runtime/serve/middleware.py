"""ASGI middleware: request ids, access log, request metrics, body size limit."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response

from xclip_runtime.errors import ClientLimitError, UploadTooLargeError
from xclip_runtime.serve.api_keys import key_in
from xclip_runtime.serve.error_responses import INTERNAL, INTERNAL_MESSAGE, OUTCOME, error_response, status_of
from xclip_runtime.serve.http_protocol import HEALTH, route_path
from xclip_runtime.serve.logs import request_id
from xclip_runtime.serve.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from xclip_runtime.serve.api_keys import ApiKeys
    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.metrics import Metrics

logger = logging.getLogger(__name__)

METRICS = "/metrics"
OTHER = "other"
"""Endpoint of requests to paths that are not declared."""
# Bounds of draining a body that is too large; a client that sends more, or more slowly, may miss the response.
_DRAINED_BYTES = 16 << 20
_DRAINED_SECONDS = 2.0
_LOGGED_CHARACTERS = 500
_RANGE = re.compile(rb"bytes=(([0-9]{1,18}-([0-9]{1,18})?|-[0-9]{1,18})(, *|$))+")
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def safe_id(given: str) -> str:
    """Return the client's request id if it is safe to log, or else a new one."""
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


def shorten(text: str) -> str:
    """Return the beginning of what a client has sent, for the log."""
    return text if len(text) <= _LOGGED_CHARACTERS else text[:_LOGGED_CHARACTERS] + "…"


def log_request(fields: Mapping[str, str], status: int, seconds: float, client: str | None, *, quiet: bool) -> None:
    """Log a finished request, at DEBUG if `quiet` (probes and scrapes), else at INFO."""
    entry = {**fields, "status": status, "ms": round(1000 * seconds, 1), "client": client}
    logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": entry})


class Observability:
    """Assigns request ids, logs and counts requests, and maps unhandled exceptions to 500.

    Args:
        app: The application.
        metrics: Counts the requests.
        keys: Names the clients.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, keys: ApiKeys) -> None:
        self._app = app
        self._metrics = metrics
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        token = request_id.set(safe_id(Headers(scope=scope).get("x-request-id", "")))
        try:
            await (self._request if scope["type"] == "http" else self._websocket)(scope, receive, send)
        finally:
            request_id.reset(token)

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        accepted = False

        async def send_observed(message: Message) -> None:
            nonlocal accepted
            accepted = accepted or message["type"] == "websocket.accept"
            if message["type"] == "websocket.close" and not accepted:
                # No route, for which the server would send an empty 403.
                absent = "no WebSocket at this path: open /v1/live"
                await error_response(HTTPConnection(scope), 404, "RequestError", absent)(scope, receive, send_observed)
                return
            if message["type"] == "websocket.http.response.start":
                MutableHeaders(scope=message)["X-Request-ID"] = request_id.get() or ""
            await send(message)

        await self._app(scope, receive, send_observed)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["X-Request-ID"] = request_id.get() or ""
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except Exception:
            logger.exception("unexpected error")
            if status == 0:
                response = error_response(HTTPConnection(scope), INTERNAL, "InternalError", INTERNAL_MESSAGE)
                await response(scope, receive, send_observed)
        finally:
            self._record(scope, status, time.perf_counter() - start)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The declared path, as every path that a client tries would be a time series of its own.
        endpoint = getattr(scope.get("route"), "path", OTHER)
        probed = status == 503 and endpoint.endswith("/ready")
        self._metrics.record_request(endpoint, status, "not_ready" if probed else scope.get(OUTCOME), seconds)
        # A token in a path is a secret.
        path = endpoint if endpoint.endswith("{token}") else scope["path"]
        fields = {"method": shorten(scope["method"]), "path": shorten(path)}
        if name := self._keys.name(key_in(Headers(scope=scope))):
            fields["key"] = name
        quiet = endpoint in HEALTH or endpoint == METRICS
        log_request(fields, status, seconds, scope["client"][0] if scope.get("client") else None, quiet=quiet)


class ClientLimits:
    """Refuses requests and WebSockets of a client that has too many open; probes and metrics do not count.

    Args:
        app: The application.
        engine: Has the limit and the keys.
    """

    def __init__(self, app: ASGIApp, engine: Engine) -> None:
        self._app = app
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] not in ("http", "websocket") or route_path(scope) in (*HEALTH, METRICS):
            await self._app(scope, receive, send)
            return
        address = scope["client"][0] if scope.get("client") else ""
        client = self._engine.keys.name(key_in(Headers(scope=scope))) or address
        try:
            with self._engine.clients.place(client):
                await self._app(scope, receive, send)
        except ClientLimitError as error:
            response = error_response(HTTPConnection(scope), status_of(error), type(error).__name__, str(error))
            response.headers["Retry-After"] = str(self._engine.retry_after)
            await response(scope, receive, send)


class MetricsPort:
    """Serves metrics and probes on a port of their own, and metrics on no other.

    Args:
        app: The application.
        port: The port.
        engine: Has the metrics.
    """

    def __init__(self, app: ASGIApp, port: int, engine: Engine) -> None:
        self._app = app
        self._port = port
        self._engine = engine

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        path = route_path(scope) if scope["type"] == "http" else ""
        here = bool(scope.get("server")) and scope["server"][1] == self._port
        if scope["type"] == "lifespan" or path in HEALTH or not (here or path == METRICS):
            await self._app(scope, receive, send)
        elif here and path == METRICS:
            await Response(self._engine.metrics.text(), media_type=CONTENT_TYPE)(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            await error_response(HTTPConnection(scope), 404, "RequestError", "Not Found")(scope, receive, send)


class Ranges:
    """Ignores a Range that is malformed or counts in other units than bytes (RFC 9110 §14.2).

    Args:
        app: The application.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] == "http":
            scope["headers"] = [header for header in scope["headers"] if header[0] != b"range" or _is_range(header[1])]
        await self._app(scope, receive, send)


def _is_range(value: bytes) -> bool:
    bounds = re.findall(rb"([0-9]+)-([0-9]+)", value)
    return bool(_RANGE.fullmatch(value)) and all(int(first) <= int(last) for first, last in bounds)


class BodyLimit:
    """Refuses request bodies over a size when they are read, announced ones before their first byte.

    Args:
        app: The application.
        max_bytes: Maximum size of a body.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        size = int(announced) if announced.isdigit() else 0
        too_large = UploadTooLargeError(f"request body exceeds {self._max_bytes} bytes: send a shorter part")
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            if size > self._max_bytes:
                # A client that expects 100-continue has sent nothing yet.
                if "expect" not in headers:
                    await _drain(receive)
                raise too_large
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._max_bytes:
                if message.get("more_body"):
                    await _drain(receive)
                raise too_large
            return message

        await self._app(scope, receive_limited, send)


async def _drain(receive: Receive) -> None:
    """Read the rest of a body, within bounds: closing the connection on a sending client may lose the response."""

    async def take() -> None:
        left, more = _DRAINED_BYTES, True
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(take(), _DRAINED_SECONDS)
