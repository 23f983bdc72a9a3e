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
from starlette.requests import Request

from xclip_runtime.errors import UploadTooLargeError
from xclip_runtime.serve.error_responses import INTERNAL, INTERNAL_MESSAGE, error_response
from xclip_runtime.serve.logs import request_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from xclip_runtime.serve.metrics import Metrics

logger = logging.getLogger(__name__)

CLIENT_GONE = 499
OUTCOMES = {
    401: "unauthorized",
    413: "too_large",
    CLIENT_GONE: "cancelled",
    503: "overloaded",
    504: "deadline",
}
# Bounds of draining a body that is too large; a client that sends more, or more slowly, may miss the response.
_DRAINED_BYTES = 16 << 20
_DRAINED_SECONDS = 2.0
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def outcome(status: int) -> str:
    """Return the `outcome` label of an HTTP status."""
    if status in OUTCOMES:
        return OUTCOMES[status]
    return "ok" if status < 400 else "refused" if status < 500 else "error"


def safe_id(given: str) -> str:
    """Return the client's request id if it is safe to log, or else a new one."""
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


def record_request(metrics: Metrics, endpoint: str, status: int, seconds: float) -> None:
    """Record a finished request in the metrics."""
    metrics.requests.labels(endpoint, outcome(status)).inc()
    metrics.request_seconds.labels(endpoint).observe(seconds)


def log_request(fields: Mapping[str, str], status: int, seconds: float, client: str | None, *, quiet: bool) -> None:
    """Log a finished request, at DEBUG if `quiet` (probes and scrapes), else at INFO."""
    entry = {**fields, "status": status, "ms": round(1000 * seconds, 1), "client": client}
    logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": entry})


class Observability:
    """Assigns request ids, logs and counts requests, and maps unhandled exceptions to 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle an ASGI connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()
        token = request_id.set(safe_id(Headers(scope=scope).get("x-request-id", "")))
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
                response = error_response(Request(scope), INTERNAL, "InternalError", INTERNAL_MESSAGE)
                await response(scope, receive, send_observed)
        finally:
            self._record(scope, status, time.perf_counter() - start)
            request_id.reset(token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        # The declared path, as every path that a client tries would be a time series of its own.
        endpoint = getattr(scope.get("route"), "path", "other")
        record_request(self._metrics, endpoint, status, seconds)
        fields = {"method": scope["method"], "path": scope["path"]}
        quiet = endpoint.startswith("/v2/health") or endpoint == "/metrics"
        log_request(fields, status, seconds, scope["client"][0] if scope.get("client") else None, quiet=quiet)


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
