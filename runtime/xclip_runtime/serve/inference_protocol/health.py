"""grpc.health.v1: the readiness of the server and of each model."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from grpc_health.v1.health_pb2 import DESCRIPTOR, HealthCheckResponse

from xclip_runtime.errors import UnknownModelError

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

    async def check(self, receive: Callable[[], Awaitable[Any]]) -> Any:
        """Return the status now.

        Raises:
            UnknownModelError: There is no such service or model.
        """
        return HealthCheckResponse(status=self._status((await receive()).service))

    async def watch(self, request: Any, _: Any) -> AsyncIterator[Any]:
        """Yield the status now and whenever it has changed, until the client leaves."""
        last = None
        while True:
            try:
                status = self._status(request.service)
            except UnknownModelError:
                status = HealthCheckResponse.SERVICE_UNKNOWN
            if status != last:
                yield HealthCheckResponse(status=status)
            last = status
            await asyncio.sleep(_WATCH_SECONDS)

    def _status(self, service: str) -> Any:
        ready = self._engine.ready if service in self._services else self._models.get(service).ready
        return HealthCheckResponse.SERVING if ready else HealthCheckResponse.NOT_SERVING
