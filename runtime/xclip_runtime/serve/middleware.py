"""Around every request: an id, a log line, metrics, keys, the size of its body. Plain ASGI."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import re
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request

from xclip_runtime.errors import UnauthorizedError, UploadTooLargeError
from xclip_runtime.serve.error_responses import INTERNAL, INTERNAL_MESSAGE, error_reply, status_of
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
# Of a body that is too large; whoever sends more, or more slowly, may lose the answer.
_DRAINED_BYTES = 16 << 20
_DRAINED_SECONDS = 2.0
_SAFE_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


def outcome(status: int) -> str:
    """The word for a status in the metrics."""
    if status in OUTCOMES:
        return OUTCOMES[status]
    return "ok" if status < 400 else "refused" if status < 500 else "error"


def new_id(given: str) -> str:
    """The id of a request: the client's, where it can be logged as it is, or a new one."""
    return given if _SAFE_ID.fullmatch(given) else uuid.uuid4().hex


def count(metrics: Metrics, endpoint: str, status: int, seconds: float) -> None:
    """Tell the metrics of a request that has ended."""
    metrics.requests.labels(endpoint, outcome(status)).inc()
    metrics.request_seconds.labels(endpoint).observe(seconds)


def log_request(fields: Mapping[str, str], status: int, seconds: float, client: str | None, *, quiet: bool) -> None:
    """A line of the log for a request that has ended; probes and the like only where everything is logged."""
    told = {**fields, "status": status, "ms": round(1000 * seconds, 1), "client": client}
    logger.log(logging.DEBUG if quiet else logging.INFO, "request", extra={"fields": told})


class Observed:
    """Gives each request an id, logs and counts it, and turns what nobody expected into a plain 500."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = time.perf_counter()
        token = request_id.set(new_id(Headers(scope=scope).get("x-request-id", "")))
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
                reply = error_reply(Request(scope), INTERNAL, "InternalError", INTERNAL_MESSAGE)
                await reply(scope, receive, send_observed)
        finally:
            self._tell(scope, status, time.perf_counter() - begun)
            request_id.reset(token)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        # The path as it was declared: a label for each path that someone tries would fill Prometheus.
        endpoint = getattr(scope.get("route"), "path", "other")
        count(self._metrics, endpoint, status, seconds)
        fields = {"method": scope["method"], "path": scope["path"]}
        quiet = endpoint.startswith("/v2/health") or endpoint == "/metrics"
        log_request(fields, status, seconds, scope["client"][0] if scope.get("client") else None, quiet=quiet)


class ApiKeys:
    """Asks for a key on every path but the open ones."""

    OPEN = re.compile(r"/(v2/health/(live|ready)|docs|openapi\.json|page/.*|v1/live|favicon\.ico)?")
    """Health, the page and the documentation; the WebSocket takes its key in its first message."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = Keys(keys)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] == "http" and not self.OPEN.fullmatch(scope["path"]):
            try:
                self._keys.check(Headers(scope=scope))
            except UnauthorizedError as error:
                reply = error_reply(Request(scope), status_of(error), type(error).__name__, str(error))
                reply.headers["WWW-Authenticate"] = "Bearer"
                await reply(scope, receive, send)
                return
        await self._app(scope, receive, send)


class Keys:
    """The keys of a server; comparing takes the same time wherever a wrong one differs."""

    def __init__(self, keys: tuple[str, ...]) -> None:
        self._digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    def fits(self, key: str) -> bool:
        """Whether this is one of them; any is where there are none."""
        digest = hashlib.sha256(key.encode()).digest()
        return not self._digests or sum(hmac.compare_digest(digest, known) for known in self._digests) > 0

    def check(self, headers: Mapping[str, str]) -> None:
        """Ask for one of them in the headers, whose names are in small letters.

        Raises:
            UnauthorizedError: None is there.
        """
        kind, _, token = headers.get("authorization", "").partition(" ")
        if not self.fits(headers.get("x-api-key", token if kind.lower() == "bearer" else "")):
            message = "this server needs a key: send it as `Authorization: Bearer KEY` or as `X-API-Key: KEY`"
            raise UnauthorizedError(message)


class BodyLimit:
    """Refuses bodies over a size: by their header before a byte is read, or when they grow too long."""

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI calls it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        message = f"the body is larger than {self._most} bytes, which is all this server takes: send a shorter part"
        headers = Headers(scope=scope)
        announced = headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > self._most:
            reply = error_reply(Request(scope), 413, UploadTooLargeError.__name__, message)
            reply.headers["Connection"] = "close"
            if "expect" not in headers:
                await _drain(receive)
            await reply(scope, receive, send)
            return
        size = 0

        async def receive_counted() -> Message:
            nonlocal size
            event = await receive()
            size += len(event.get("body", b""))
            if size > self._most:
                if event.get("more_body"):
                    await _drain(receive)
                raise UploadTooLargeError(message)
            return event

        await self._app(scope, receive_counted, send)


async def _drain(receive: Receive) -> None:
    """Take the rest of a body, within bounds: where a connection closes as the client sends, the answer may be lost."""

    async def take() -> None:
        left, more = _DRAINED_BYTES, True
        while more and left > 0:
            event = await receive()
            left -= len(event.get("body", b""))
            more = event.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(take(), _DRAINED_SECONDS)
