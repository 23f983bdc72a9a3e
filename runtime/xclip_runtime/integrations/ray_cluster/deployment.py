"""The server's application as an autoscaling deployment of Ray Serve."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import MissingExtraError
from xclip_runtime.serve.settings import ServeSettings

try:
    from ray import serve
except ModuleNotFoundError as error:
    feature = f"serving on Ray (missing: {error.name})"
    raise MissingExtraError(feature, "ray") from error
except Exception as error:  # protobuf's VersionError, which older protobufs do not have
    if type(error).__name__ != "VersionError":
        raise
    feature = f"serving on Ray (versions that do not fit together: {str(error).partition(' Runtime ')[0]})"
    raise MissingExtraError(feature, "ray,grpc") from error

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping

    from ray.serve import Application
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_STARTED = "lifespan.startup.complete"


def xclip_deployment(
    bundle: str | os.PathLike[str],
    *,
    min_replicas: int = 1,
    max_replicas: int = 4,
    target_ongoing_requests: float = 2.0,
    autoscaling: Mapping[str, Any] | None = None,
    cpus_per_replica: int = 1,
    gpus_per_replica: float = 0.0,
    settings: ServeSettings | None = None,
    model_options: Mapping[str, Any] | None = None,
) -> Application:
    """Return an application for ``ray.serve.run`` with the routes of ``xclip-onnx serve``.

    Kept videos and ``/metrics`` belong to one replica each. Uploads pass through Ray's proxy; each replica admits
    ``settings.queue`` requests.

    Args:
        bundle: Folder at the same path on every machine.
        min_replicas: Minimum number of replicas; 0 scales to zero.
        max_replicas: Maximum number of replicas.
        target_ongoing_requests: Requests per replica above which Ray adds one.
        autoscaling: Further fields of Ray's ``autoscaling_config``, such as ``upscale_delay_s``.
        cpus_per_replica: CPUs that each replica reserves and uses.
        gpus_per_replica: GPUs that each replica reserves.
        settings: As for ``xclip-onnx serve``; None runs one decode worker per CPU of the replica.
        model_options: Further arguments of `xclip_runtime.XClip`.
    """
    path = str(Path(bundle).resolve())
    limits = settings or replace(ServeSettings(), decode_workers=cpus_per_replica)
    options = {"threads": cpus_per_replica, **(model_options or {})}

    # Ray calls this in the replica, as sessions and processes cannot be pickled.
    def application() -> ASGIApp:
        return _application(path, limits, options)

    @serve.deployment(
        name="xclip",
        max_ongoing_requests=limits.queue,
        autoscaling_config={
            **(autoscaling or {}),
            "min_replicas": min_replicas,
            "max_replicas": max_replicas,
            "target_ongoing_requests": target_ongoing_requests,
        },
        ray_actor_options={"num_cpus": cpus_per_replica, "num_gpus": gpus_per_replica},
    )
    @serve.ingress(application)
    class Replica:
        """Ray actor with the application."""

    # The decorators return another class, which type checkers cannot see.
    deployment: Any = Replica
    bound: Application = deployment.bind()
    return bound


def _application(bundle: str, settings: ServeSettings, options: Mapping[str, Any]) -> ASGIApp:
    from xclip_runtime.model import XClip  # noqa: PLC0415 - needed in the replica alone
    from xclip_runtime.serve.app import create_app  # noqa: PLC0415
    from xclip_runtime.serve.engine import Engine  # noqa: PLC0415

    engine = Engine(XClip(bundle, **options), settings)
    failures: list[Exception] = []
    app = create_app(engine, failures.append)

    async def ready_when_started(scope: Scope, receive: Receive, send: Send) -> None:
        """Delay the end of the startup until after warm-up and self-test, when Ray may send requests."""

        async def send_when_ready(message: Message) -> None:
            if message["type"] == _STARTED:
                while not engine.started.is_set() and not failures:
                    await asyncio.sleep(0.01)
                if failures:
                    message = {"type": "lifespan.startup.failed", "message": str(failures[0])}
            await send(message)

        await app(scope, receive, send_when_ready if scope["type"] == "lifespan" else send)

    return ready_when_started
