"""HTTP/1.1 of one connection: strict parsing, half-closed clients, and health alone where there is no room."""

from __future__ import annotations

import json
import re
import socket
import uuid
from typing import TYPE_CHECKING, Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio
    from typing import TypeAlias

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from xclip_runtime.serve.connections import Door

    ASGIHeaders: TypeAlias = list[tuple[bytes, bytes]]

HEALTH = ("/healthz", "/v2/health/live", "/v2/health/ready")
"""Paths that are answered even where all connections are taken."""

_WATCH_PEER_SECONDS = 0.2
_HEADER_BYTES = 64 << 10
# RFC 9110 §7.2: a name, an IPv4 or a bracketed IPv6 address, and a port or none.
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[\w.~!$&'()*+,;=%-]*)(:[0-9]{0,5})?")


def _response(
    status: bytes, kind: str, message: str, *headers: tuple[bytes, bytes]
) -> tuple[bytes, ASGIHeaders, bytes]:
    """Return an error response as bytes, and its headers and body alone."""
    request_id = uuid.uuid4().hex
    body = json.dumps({"error": {"type": kind, "message": message, "request_id": request_id}}).encode()
    length = str(len(body)).encode()
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", length),
        (b"connection", b"close"),
        (b"x-request-id", request_id.encode()),
        *headers,
    ]
    head = b"".join(name + b": " + value + b"\r\n" for name, value in fields)
    return b"HTTP/1.1 " + status + b"\r\n" + head + b"\r\n" + body, fields, body


def busy() -> tuple[bytes, ASGIHeaders, bytes]:
    """Return the response of a server without a free connection as bytes, and its headers and body alone."""
    message = "too many connections: try again later"
    return _response(b"503 Service Unavailable", "OverloadedError", message, (b"retry-after", b"1"))


class _StrictParser(h11.Connection):
    """Parser that refuses what a proxy in front may take for another request (RFC 9112 §3.2, §6.1)."""

    fault = ""
    """Why a request is refused."""

    def next_event(self) -> type[h11.NEED_DATA | h11.PAUSED] | h11.Event:
        """Return the next part of a request.

        Raises:
            h11.RemoteProtocolError: It is malformed.
        """
        try:
            event = super().next_event()
            if isinstance(event, h11.Request):
                _check_header(event)
        except h11.RemoteProtocolError as error:
            self.fault = str(error)
            raise
        return event


def _check_header(request: h11.Request) -> None:
    headers = dict(request.headers)
    chunked = b"transfer-encoding" in headers
    if chunked and (b"content-length" in headers or request.http_version < b"1.1"):
        message = "Transfer-Encoding beside Content-Length or in HTTP/1.0"
        raise h11.RemoteProtocolError(message)
    if not _HOST.fullmatch(headers.get(b"host", b"")):
        message = "malformed Host"
        raise h11.RemoteProtocolError(message)


class HttpProtocol(H11Protocol):
    """HTTP/1.1 of one connection.

    Args:
        door: Accepted the connection.
        spare: The connection is beyond the limit.
        settings: uvicorn's own.
    """

    conn: _StrictParser

    def __init__(self, door: Door, *, spare: bool, **settings: Any) -> None:
        super().__init__(**settings)
        self.conn = _StrictParser(h11.SERVER, _HEADER_BYTES)
        self._door, self._spare = door, spare
        if spare:
            self.app = _health_only(self.app)
        self.idle_since = self.loop.time()
        """Since when no request is in progress."""
        self.header_since: float | None = self.idle_since
        """Since when the client owes the header of a request."""
        self._half_closed = False

    @property
    def idle(self) -> bool:
        """True if no request is in progress."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def worth(self) -> tuple[bool, bool, float]:
        """Order in which connections are given up: stuck ones last, then those that have had a response."""
        begun = self.transport is not None
        return begun and self.transport.get_write_buffer_size() > 0, self.cycle is not None, self.idle_since

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection as open."""
        super().connection_made(transport)
        self._door.opening.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Count the time to a complete header from its first byte, or from the start of the connection."""
        super().data_received(data)
        if not self.idle:
            self.header_since = None
        elif self.header_since is None:
            self.header_since = self.loop.time()

    def on_response_complete(self) -> None:
        """Count idle time from the end of a response."""
        self.idle_since = self.loop.time()
        super().on_response_complete()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Answer a client that has closed its sending side alone, which looks the same as one that has left."""
        if self.idle or self.cycle.more_body or self.scheme == "https":
            return False
        self.cycle.keep_alive = False
        if not self._half_closed:
            self._half_closed = True
            if self.conn.our_state is h11.SEND_RESPONSE and self.scope["http_version"] == "1.1":
                # Ignored by a client that reads; the host of one that has left answers with a reset.
                probe = h11.InformationalResponse(status_code=100, headers=[], reason="Continue")
                self.transport.write(self.conn.send(probe) or b"")
            self._watch_peer()
        return True

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002 - uvicorn's signature
        """Refuse what is not HTTP."""
        self._door.on_refused("malformed")
        message = f"this is not valid HTTP/1.1 ({self.conn.fault}): check the client or its proxy"
        self.transport.write(_response(b"400 Bad Request", "RequestError", message)[0])
        self.transport.close()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Refuse a WebSocket where there are too many."""
        if not self._spare and self._door.admits_websocket():
            super().handle_websocket_upgrade(event)
        else:
            self.transport.write(busy()[0])
            self.transport.close()

    def _should_upgrade(self) -> bool:
        # Anything else than GET is no handshake, and is answered as the request that it is (RFC 6455 §4.1).
        return self.scope["method"] == "GET" and super()._should_upgrade()

    def _watch_peer(self) -> None:
        if self.idle or self.transport.is_closing():
            return
        # After the end of input the event loop no longer watches the socket.
        if self.transport.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self.transport.abort()
        else:
            self.loop.call_later(_WATCH_PEER_SECONDS, self._watch_peer)


def _health_only(app: ASGIApp) -> ASGIApp:
    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_last(message: Message) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        if route_path(scope) in HEALTH:
            await app(scope, receive, send_last)
        else:
            _, headers, body = busy()
            await send({"type": "http.response.start", "status": 503, "headers": headers})
            await send({"type": "http.response.body", "body": body})

    return answer


def route_path(scope: Scope) -> str:
    """Return the path of a request below the root path."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
