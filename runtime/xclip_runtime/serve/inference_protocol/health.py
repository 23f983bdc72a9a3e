"""grpc.health.v1: the readiness of the server and of each model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckRequest, HealthCheckResponse

from xclip_runtime.errors import TensorError, UnknownModelError
from xclip_runtime.serve.inference_protocol import wire

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.models import Models

HEALTH: str = DESCRIPTOR.services_by_name["Health"].full_name

_WATCH_SECONDS = 1.0


class Health:
    """Answers for the server (no service, or the inference service) and for models by their names.

    Args:
        engine: The engine.
        models: The models.
        service: Name of the inference service.
    """

    def __init__(self, engine: Engine, models: Models, service: str) -> None:
        self._engine = engine
        self._models = models
        self._services = ("", service, HEALTH)
        self._watching = 0

    async def check(self, receive: Callable[[], Awaitable[Any]]) -> Any:
        """Return the status now.

        Raises:
            UnknownModelError: There is no such service or model.
        """
        return HealthCheckResponse(status=self._status((await receive()).service))

    async def watch(self, request: bytes, context: Any) -> AsyncIterator[Any]:
        """Yield the status now and whenever it has changed, until the client leaves."""
        refusal, service = "", ""
        try:
            service = wire.parse(request, HealthCheckRequest).service
        except TensorError as error:
            refusal = str(error)
        if refusal:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, refusal)
        if self._watching >= self._engine.settings.limits.connections:
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many watch this server: use Check")
        self._watching += 1
        try:
            last = None
            while True:
                status = self._status_now(service)
                if status != last:
                    yield HealthCheckResponse(status=status)
                last = status
                await asyncio.sleep(_WATCH_SECONDS)
        finally:
            self._watching -= 1

    def _status_now(self, service: str) -> Any:
        try:
            return self._status(service)
        except UnknownModelError:
            return HealthCheckResponse.SERVICE_UNKNOWN

    def _status(self, service: str) -> Any:
        ready = self._engine.ready if service in self._services else self._models.get(service).ready
        return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
