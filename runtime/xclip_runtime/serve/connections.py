"""Connections: bounded in number and in time from accept() on."""

from __future__ import annotations

import asyncio
import logging
import resource
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from xclip_runtime.serve.http_protocol import HttpProtocol, busy

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Sequence

    from uvicorn.server import ServerState

    from xclip_runtime.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

SPARE_CONNECTIONS = 16
"""Connections beyond the limit that get an answer, and only about health."""

# Descriptors of the model, the index, logs, listening sockets; pipes of a worker, of one that replaces it, too.
_OWN_FILES = 64
_FILES_PER_WORKER = 8
_MOST_FILES = 65536
_LEAST_CONNECTIONS = 16
_METADATA_BYTES = 16 << 10
_PAUSE = 0.1
_SECONDS_BETWEEN_WARNINGS = 10.0


def raise_file_limit() -> None:
    """Let this process open as many files as it may, where the usual limit is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def connection_limit(settings: ServeSettings, ports: int = 1) -> int:
    """Return the number of connections per port for which the process may open enough files.

    Args:
        settings: Settings of the server.
        ports: Number of ports that share the open files.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    reserved = _OWN_FILES + SPARE_CONNECTIONS + settings.queue + _FILES_PER_WORKER * settings.decode_workers
    limit = min(settings.limits.connections, max(_LEAST_CONNECTIONS, (files - reserved) // ports))
    if limit < settings.limits.connections:
        fields = {"connections": limit, "open_files": files}
        logger.warning("fewer connections than set, as few files may be open", extra={"fields": fields})
    return limit


def grpc_options(settings: ServeSettings, limit: int) -> list[tuple[str, int]]:
    """Return the options that bound the connections of a gRPC server.

    Args:
        settings: Settings of the server.
        limit: Maximum number of connections.
    """
    limits = settings.limits
    return [
        ("grpc.max_allowed_incoming_connections", limit),
        # With room for probes beside requests.
        ("grpc.max_concurrent_streams", settings.queue + SPARE_CONNECTIONS),
        ("grpc.max_metadata_size", _METADATA_BYTES),
        ("grpc.server_handshake_timeout_ms", round(1000 * limits.header_timeout)),
        ("grpc.max_connection_idle_ms", round(1000 * limits.idle_timeout)),
        # Clients that are gone without a goodbye are found by pings.
        ("grpc.keepalive_time_ms", round(1000 * limits.idle_timeout)),
        ("grpc.keepalive_timeout_ms", round(1000 * limits.header_timeout)),
    ]


class Door:
    """Accepts connections up to a limit, beyond which an idle one makes room for a new one.

    Has the interface of an asyncio.Server that uvicorn needs.

    Args:
        state: uvicorn's, with all connections.
        new_protocol: Makes the protocol of a connection.
        settings: Settings of the server.
        limit: Maximum number of connections.
        tls: TLS of the connections.
        on_refused: Called for each connection that is given up, with one of `metrics.CLOSED`.
    """

    def __init__(
        self,
        state: ServerState,
        new_protocol: Callable[..., HttpProtocol],
        settings: ServeSettings,
        *,
        limit: int,
        tls: ssl.SSLContext | None = None,
        on_refused: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._connections = state.connections
        self._new_protocol = new_protocol
        self._limits = settings.limits
        self._write_seconds = settings.request_timeout
        self._limit = limit
        self._tls = tls
        self.on_refused = on_refused
        self._tasks: set[asyncio.Task[None]] = set()
        self.opening: dict[HttpProtocol, asyncio.Task[None]] = {}
        """Accepted connections that have not begun, such as those in a TLS handshake, with what opens them."""
        self._stalled: dict[Any, tuple[int, float]] = {}
        self._refused_since_warning = 0
        self._warned_at = -_SECONDS_BETWEEN_WARNINGS

    def open(self, listening: Sequence[socket.socket]) -> None:
        """Start to accept connections."""
        for one in listening:
            one.setblocking(False)
            self._spawn(self._accept(one))

    def close(self) -> None:
        """Stop accepting connections."""
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Wait until the listening sockets are no longer used."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def abort_idle(self) -> None:
        """End idle connections with TLS, whose clients might be waited for to say goodbye."""
        for connection in [c for c in self._connections if self._tls and isinstance(c, HttpProtocol) and c.idle]:
            if not connection.transport.get_write_buffer_size():
                connection.transport.abort()

    @property
    def count(self) -> int:
        """Number of connections."""
        return len(self._connections) + len(self.opening)

    def admits_websocket(self) -> bool:
        """Return True if another WebSocket is allowed: twice the cameras, as each begins before it is counted."""
        websockets = sum(not isinstance(connection, HttpProtocol) for connection in self._connections)
        return websockets < 2 * self._limits.live_connections

    def sweep(self) -> None:
        """Close connections whose time is up; to be called about once a second."""
        now = asyncio.get_running_loop().time()
        unread = {c: size for c in self._connections if (size := c.transport.get_write_buffer_size()) > 0}
        # What is unread changes while a client reads, be it slowly; the system's own buffer is between them.
        known = {c: self._stalled.get(c, (0, now)) for c in unread}
        self._stalled = {c: (size, known[c][1] if known[c][0] == size else now) for c, size in unread.items()}
        for connection, (_, since) in self._stalled.items():
            if now - since > self._write_seconds:
                self._give_up(connection, "stalled")
        for connection in [c for c in self._connections if isinstance(c, HttpProtocol)]:
            if connection.header_since is not None and now - connection.header_since > self._limits.header_timeout:
                self._give_up(connection, "header")

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listening)
            except OSError as error:
                # Such as EMFILE: the descriptors are taken by something else.
                self._warn(str(error.strerror))
                self.on_refused("files")
                self._make_room(force=True)
                await asyncio.sleep(_PAUSE)
                continue
            spare = not self._make_room()
            if spare and self.count >= self._limit + SPARE_CONNECTIONS:
                self._turn_away(accepted)
            else:
                protocol = self._new_protocol(self, spare=spare)
                self.opening[protocol] = self._spawn(self._open(accepted, protocol))
            # A waiting connection is accepted without a pause, which would leave all others without a turn.
            await asyncio.sleep(0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _open(self, accepted: socket.socket, protocol: HttpProtocol) -> None:
        if accepted.family != socket.AF_UNIX:
            # asyncio sets it only on sockets that were made with the protocol's number.
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        handshake = {"ssl_handshake_timeout": self._limits.header_timeout} if self._tls else {}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: protocol, accepted, ssl=self._tls, **handshake
            )
        except OSError:
            # A failed handshake.
            accepted.close()
        finally:
            self.opening.pop(protocol, None)

    def _make_room(self, *, force: bool = False) -> bool:
        if self.count < self._limit and not force:
            return True
        idle = [c for c in self._connections if isinstance(c, HttpProtocol) and c.idle]
        # Without TLS they begin at once.
        idle += self.opening if self._tls else ()
        if not idle:
            return False
        self._give_up(min(idle, key=lambda connection: connection.worth), "idle")
        return True

    def _give_up(self, connection: Any, reason: str) -> None:
        # Its place is free at once; connection_lost() follows.
        if connection in self.opening:
            self.opening.pop(connection).cancel()
        else:
            if isinstance(connection, HttpProtocol):
                self._connections.discard(connection)
            connection.transport.abort()
        self.on_refused(reason)
        if reason != "header":
            self._warn("too many connections" if reason == "idle" else "a client does not read its response")

    def _turn_away(self, accepted: socket.socket) -> None:
        if self._tls is None:
            with suppress(OSError):
                accepted.send(busy()[0])
        accepted.close()
        self.on_refused("full")
        self._warn("too many connections")

    def _warn(self, cause: str) -> None:
        """Log how many connections were given up, once in a while however many there are."""
        self._refused_since_warning += 1
        now = asyncio.get_running_loop().time()
        if now - self._warned_at >= _SECONDS_BETWEEN_WARNINGS:
            fields = {"cause": cause, "count": self._refused_since_warning, "open": self.count}
            logger.warning("connections are closed", extra={"fields": fields})
            self._refused_since_warning, self._warned_at = 0, now
