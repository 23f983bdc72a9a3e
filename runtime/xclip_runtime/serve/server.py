"""The uvicorn server: bind, run, drain, stop."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
from typing import TYPE_CHECKING

import uvicorn

from xclip_runtime.serve.app import create_app
from xclip_runtime.serve.engine import Engine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType

    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.serve.registry import Opener
    from xclip_runtime.serve.settings import ServeSettings

logger = logging.getLogger(__name__)

MESSAGE_BYTES = 4 << 20
"""Maximum size of a WebSocket message, which is a frame of a camera."""

_BACKLOG = 2048


class Server(uvicorn.Server):
    """HTTP server of one or several models, optionally with gRPC.

    SIGTERM or SIGINT closes its sockets, answers the admitted requests and ends it; a second SIGINT ends it at once.

    Args:
        models: The model to serve, or a function that opens it for each name; the first is the default.
        settings: Limits and queue sizes.
        host: Address to bind.
        port: Port for HTTP; 0 for any free port.
        grpc_port: Port for gRPC on the same host; 0 for any free port, None for no gRPC.
        index: Index of a single model for /v1/search; without one there is no such route.

    Raises:
        XClipError: A bundle cannot be opened.
        OSError: An address cannot be bound.
        MissingExtraError: The extra [grpc] is not installed.
    """

    def __init__(
        self,
        models: XClip | Mapping[str, Opener],
        settings: ServeSettings,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        grpc_port: int | None = None,
        index: VideoIndex | None = None,
    ) -> None:
        self._socket = _bind(host, port)
        self.address = f"http://{_address(self._socket)}"
        self.engine = Engine(models, settings, index)
        self.grpc_address: str | None = None
        if grpc_port is not None:
            from xclip_runtime.serve.inference_protocol.rpc import RpcServer  # noqa: PLC0415 - an extra

            # gRPC binds the port once the event loop runs; holding it until then makes it known and keeps it free.
            self._grpc_socket = _bind(host, grpc_port)
            self.grpc_address = _address(self._grpc_socket)
            self._rpc = RpcServer(self.engine, self.grpc_address)
        # By then every admitted request is answered or past its deadline.
        self._drain_seconds = math.ceil(settings.request_timeout) + 5
        self.error: Exception | None = None
        """Error that kept the server from starting."""
        config = uvicorn.Config(
            create_app(self.engine, self._fail),
            log_config=None,
            access_log=False,
            server_header=False,
            lifespan="on",
            ws_max_size=MESSAGE_BYTES,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=self._drain_seconds,
        )
        super().__init__(config)

    def run_until_stopped(self) -> None:
        """Serve until a signal arrives or `should_exit` is set.

        Raises:
            XClipError: The self-test fails, or the decode workers do not start.
        """
        grpc = {"grpc": self.grpc_address} if self.grpc_address else {}
        logger.info("listening", extra={"fields": {"address": self.address, **grpc}})
        asyncio.run(self.serve(sockets=[self._socket]))
        if self.error is not None:
            raise self.error

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to accept requests."""
        if self.grpc_address is not None:
            self._grpc_socket.close()
            await self._rpc.start()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop accepting requests, answer the admitted ones, and close the engine."""
        if self.grpc_address is not None:
            for listening in self.servers:
                listening.close()
            await self._rpc.stop(self._drain_seconds)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle a signal; the server is no longer ready, so that load balancers send no more requests."""
        logger.info("stopping", extra={"fields": {"in_flight": self.engine.in_flight}})
        self.engine.draining = True
        super().handle_exit(sig, frame)

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
    server.run_until_stopped()


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        message = f"cannot listen on {host} port {port} ({error.strerror or error}): choose another --host or --port"
        raise OSError(message) from error


def _address(bound: socket.socket) -> str:
    name, number = bound.getsockname()[:2]
    return f"[{name}]:{number}" if ":" in name else f"{name}:{number}"
