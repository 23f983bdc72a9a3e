"""The uvicorn server: bind, run, reload, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import uvicorn

from xclip_runtime.errors import ListenError, XClipError
from xclip_runtime.serve.app import create_app
from xclip_runtime.serve.connections import Door, connection_limit
from xclip_runtime.serve.engine import Engine
from xclip_runtime.serve.http_protocol import HttpProtocol
from xclip_runtime.serve.notify import WATCHDOG, notify, notify_reloading
from xclip_runtime.serve.websocket import WebSocketProtocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.serve.registry import Opener
    from xclip_runtime.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 4 << 20
"""Maximum size of a WebSocket message, which is a frame of a camera."""

_BACKLOG = 2048
_TICKS_PER_SECOND = 10


class Server(uvicorn.Server):
    """HTTP server of one or several models, optionally with gRPC.

    SIGTERM or SIGINT closes its sockets, answers the admitted requests and ends it; a second SIGINT ends it at once.
    SIGHUP reloads what can be reloaded.

    Args:
        models: The model to serve, or a function that opens it for each name; the first is the default.
        settings: Limits and queue sizes.
        host: Address to bind.
        port: Port for HTTP; 0 for any free port.
        uds: Path of a Unix socket for HTTP in place of host and port.
        grpc_port: Port for gRPC on the same host; 0 for any free port, None for no gRPC.
        metrics_port: Port for /metrics and the health probes on the same host, without a key; /metrics is then no
            longer on the other port. 0 for any free port, None for none of its own.
        tls: Files of the certificate chain and of its key, PEM; None for plain HTTP and gRPC.
        root_path: Path below which a proxy shows the server.
        index: Index of a single model for /v1/search; without one there is no such route.
        read_keys: Reads the API keys anew; None to keep those of the settings.

    Raises:
        XClipError: A bundle cannot be opened.
        ListenError: An address cannot be bound, or the certificate cannot be used.
        MissingExtraError: The extra [grpc] is not installed.
    """

    def __init__(
        self,
        models: XClip | Mapping[str, Opener],
        settings: ServeSettings,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        uds: str | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        tls: tuple[str, str] | None = None,
        root_path: str = "",
        index: VideoIndex | None = None,
        read_keys: Callable[[], Sequence[str]] | None = None,
    ) -> None:
        self._uds = uds
        scheme = "https" if tls else "http"
        self._sockets = [_bind(host, port) if uds is None else _bind_unix(uds)]
        self.address = f"{scheme}://{_address(self._sockets[0])}" if uds is None else f"unix:{uds}"
        self.metrics_address: str | None = None
        if metrics_port is not None:
            self._sockets.append(_bind(host, metrics_port))
            self.metrics_address = f"{scheme}://{_address(self._sockets[1])}"
        self._settings = settings
        self._read_keys = read_keys
        self.engine = Engine(models, settings, index)
        self.grpc_address: str | None = None
        self._limit = connection_limit(settings, ports=1 if grpc_port is None else 2)
        if grpc_port is not None:
            from xclip_runtime.serve.inference_protocol.rpc import RpcServer  # noqa: PLC0415 - an extra

            # gRPC binds the port once the event loop runs; holding it until then makes it known and keeps it free.
            self._grpc_socket = _bind(host, grpc_port)
            self.grpc_address = _address(self._grpc_socket)
            self._rpc = RpcServer(self.engine, self.grpc_address, connections=self._limit, tls=tls)
        # By then every admitted request is answered or past its deadline.
        self._drain_seconds = math.ceil(settings.request_timeout) + 5
        self.error: Exception | None = None
        """Error that kept the server from starting."""
        self._announced = False
        self._reloading: asyncio.Task[None] | None = None
        self._reload_wanted = False
        own_port = None if self.metrics_address is None else self._sockets[1].getsockname()[1]
        config = uvicorn.Config(
            create_app(self.engine, self._fail, metrics_port=own_port),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            root_path=root_path.rstrip("/"),
            # Who reaches a Unix socket is on this host, as a trusted proxy is.
            forwarded_allow_ips=None if uds is None else os.environ.get("FORWARDED_ALLOW_IPS", "*"),
            ws=WebSocketProtocol,
            ws_max_size=MESSAGE_BYTES,
            timeout_keep_alive=settings.limits.idle_timeout,  # type: ignore[arg-type]
            timeout_graceful_shutdown=self._drain_seconds,
            ssl_certfile=tls and tls[0],
            ssl_keyfile=tls and tls[1],
        )
        try:
            config.load()
        except OSError as error:
            message = f"cannot use the TLS certificate and key ({error.strerror or error}): give PEM files that match"
            raise ListenError(message) from error
        super().__init__(config)

    def run_until_stopped(self) -> None:
        """Serve until a signal arrives or `should_exit` is set.

        Raises:
            XClipError: The self-test fails, or the decode workers do not start.
        """
        others = {"grpc": self.grpc_address, "metrics": self.metrics_address}
        fields = {"address": self.address, **{name: address for name, address in others.items() if address}}
        logger.info("listening", extra={"fields": fields})
        asyncio.run(self.serve(sockets=self._sockets))
        if self.error is not None:
            raise self.error

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests."""
        if threading.current_thread() is threading.main_thread():
            asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        if self.grpc_address is not None:
            self._grpc_socket.close()
            await self._rpc.start()
        await super().startup([])
        self._door = Door(
            self.server_state,
            self._new_protocol,
            self._settings,
            limit=self._limit,
            tls=self.config.ssl,
            on_refused=self.engine.metrics.connection_closed,
        )
        self.engine.metrics.observe_connections(lambda: self._door.count)
        self._door.open(sockets or [])

    async def on_tick(self, counter: int) -> bool:
        """Close what is past its time, once a second, and tell systemd when the server is ready."""
        if counter % _TICKS_PER_SECOND == 0:
            self._door.sweep()
            if WATCHDOG:
                notify("WATCHDOG=1")
        if self.engine.started.is_set() and not self._announced:
            self._announced = True
            notify("READY=1")
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting requests, answer the admitted ones, and close the engine."""
        self._door.close()
        await self._door.wait_closed()
        self._door.abort_idle()
        if self._reloading is not None:
            self._reloading.cancel()
        if self.grpc_address is not None:
            await self._rpc.stop(self._drain_seconds)
        await super().shutdown(sockets)
        if self._uds is not None:
            with suppress(OSError):
                Path(self._uds).unlink()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal; the server is no longer ready, so that load balancers send no more requests.

        It still accepts requests for the drain delay, or until a second signal.
        """
        first, self.engine.draining = not self.engine.draining, True
        if first:
            logger.info("stopping", extra={"fields": {"in_flight": self.engine.in_flight}})
            notify("STOPPING=1")
        if first and sig == signal.SIGTERM and self.engine.started.is_set() and self._settings.drain_delay > 0:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(loop.call_later, self._settings.drain_delay, self._exit)
        else:
            super().handle_exit(sig, frame)

    async def reload(self) -> None:
        """Read keys, certificate and bundles anew; what fails is logged, and the server goes on with what it has."""
        notify_reloading()
        try:
            for part, load in (("list of keys", self._reload_keys), ("certificate", self._reload_certificate)):
                try:
                    load()
                except (XClipError, OSError, ValueError) as error:
                    logger.error("the %s stays as it is", part, extra={"fields": {"error": str(error)}})
            if self.engine.started.is_set():
                await self.engine.registry.reload()
            logger.info("reloaded")
        finally:
            if not self.engine.draining:
                notify("READY=1")

    def _reload_keys(self) -> None:
        if self._read_keys is not None and self.engine.keys.replace(self._read_keys()):
            # Media of hits that were found with a revoked key must not stay open.
            self.engine.hit_media.forget()

    def _reload_certificate(self) -> None:
        if self.config.ssl is not None:
            self.config.ssl.load_cert_chain(str(self.config.ssl_certfile), self.config.ssl_keyfile)
            if self.grpc_address is not None:
                self._rpc.load_certificate()

    def _on_hangup(self) -> None:
        self._reload_wanted = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.ensure_future(self._reload_while_wanted())

    async def _reload_while_wanted(self) -> None:
        # A signal during a reload may stand for a key that has been revoked since.
        while self._reload_wanted:
            self._reload_wanted = False
            await self.reload()

    def _new_protocol(self, door: Door, *, spare: bool) -> HttpProtocol:
        shared: dict[str, Any] = {"server_state": self.server_state, "app_state": self.lifespan.state}
        return HttpProtocol(door, spare=spare, config=self.config, **shared)

    def _exit(self) -> None:
        self.should_exit = True

    def _fail(self, error: Exception) -> None:
        self.error = error
        self.should_exit = True


def run_as_process(server: Server) -> None:
    """Serve until SIGTERM or SIGINT, then return.

    Raises:
        XClipError: See `Server.run_until_stopped`.
    """
    # When uvicorn is done it raises the signals that it has caught once more, which must not end this process.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    # Until the event loop handles the signal.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    server.run_until_stopped()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        message = f"cannot listen on {host} port {port} ({_cause(error)}): choose another --host or --port"
        raise ListenError(message) from error


def _cause(error: OSError) -> str:
    """Return the system's own words, without what the standard library adds about the address."""
    return os.strerror(error.errno) if error.errno else str(error)


def _bind_unix(path: str) -> socket.socket:
    listening = socket.socket(socket.AF_UNIX)
    try:
        if Path(path).is_socket() and listening.connect_ex(path):
            # A killed server left it: nobody listens.
            Path(path).unlink()
            listening.close()
            listening = socket.socket(socket.AF_UNIX)
        listening.bind(path)
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        message = f"cannot listen on {path} ({_cause(error)}): choose another --uds"
        raise ListenError(message) from error
    return listening


def _address(bound: socket.socket) -> str:
    name, number = bound.getsockname()[:2]
    return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"
