"""The ASGI application: routes, error handlers, middleware."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Route

from xclip_runtime._version import __version__
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import (
    DiskFullError,
    OverloadedError,
    UnauthorizedError,
    UploadTooLargeError,
    XClipError,
)
from xclip_runtime.serve import telemetry
from xclip_runtime.serve.api import live, media, search, videos
from xclip_runtime.serve.api.openapi import DESCRIPTION, errors, example
from xclip_runtime.serve.api.schemas import Live, Ready
from xclip_runtime.serve.api_keys import key_in
from xclip_runtime.serve.error_responses import (
    INTERNAL,
    INTERNAL_MESSAGE,
    OUTCOME,
    describe,
    error_response,
    first_problem,
    outcome_of,
)
from xclip_runtime.serve.inference_protocol import rest
from xclip_runtime.serve.metrics import CLIENT_GONE, CONTENT_TYPE
from xclip_runtime.serve.middleware import OTHER, BodyLimit, ClientLimits, MetricsPort, Observability, Ranges
from xclip_runtime.serve.origins import OriginPolicy
from xclip_runtime.serve.request import ClientGoneError, check_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
    from typing import Any

    from starlette.types import ASGIApp

    from xclip_runtime.serve.api_keys import ApiKeys
    from xclip_runtime.serve.engine import Engine

PAGE = Path(__file__).parent / "page"

# The page loads nothing from other hosts and cannot be framed.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(
    engine: Engine, on_failure: Callable[[Exception], None] = lambda _: None, *, metrics_port: int | None = None
) -> ASGIApp:
    """Return the application of an engine, which it starts and closes.

    Args:
        engine: Answers the requests.
        on_failure: Called if the engine fails to start; the server is live then, but never ready.
        metrics_port: Port that serves /metrics alone; None to serve it beside the rest.

    Raises:
        MissingExtraError: Traces are asked for and the extra [otel] is not installed.
    """

    async def start() -> None:
        try:
            await engine.start()
        except Exception as error:  # noqa: BLE001 - on_failure decides
            on_failure(error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.ensure_future(start())
        yield
        await starting
        await engine.close()
        await asyncio.to_thread(stop_tracing)

    app = FastAPI(
        title="xclip-onnx",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    keys = engine.keys
    # Without keys the OpenAPI document must not ask for one.
    protected = [Depends(check_query), *([Depends(keys)] if keys else [])]
    app.include_router(videos.router(engine), dependencies=protected)
    app.include_router(rest.router(engine), dependencies=protected)
    app.include_router(live.router(engine, keys))
    if engine.registry.default.index is not None:
        app.include_router(search.router(engine), dependencies=protected)
    _add_operations(app, engine, protected)
    _add_page(app, engine)
    _add_error_handlers(app, engine, keys)
    stop_tracing = telemetry.trace(app)
    engine.metrics.expect_requests({OTHER, *_paths(app.routes)})
    inner: ASGIApp = ClientLimits(BodyLimit(Ranges(app), engine.settings.limits.upload), engine)
    if metrics_port is not None:
        inner = MetricsPort(inner, metrics_port, engine)
    return Observability(OriginPolicy(inner, engine.settings), engine.metrics, keys)


def _paths(routes: Iterable[Any]) -> Iterator[str]:
    for route in routes:
        if isinstance(route, Route):
            yield route.path
        # Newer versions of FastAPI keep included routers as they are.
        yield from _paths(getattr(getattr(route, "original_router", None), "routes", ()))


def _add_operations(app: FastAPI, engine: Engine, protected: Sequence[Any]) -> None:
    def operation(path: str, **options: Any) -> Callable[[Any], Any]:
        extra = example(f"curl -f http://127.0.0.1:8000{path}")
        return app.get(path, tags=["operations"], openapi_extra=extra, **options)

    @operation("/healthz")
    @operation("/v2/health/live")
    async def is_live() -> Live:
        """Liveness probe."""
        return Live(live=True)

    @operation("/v2/health/ready", response_model=Ready, responses={503: {"model": Ready}})
    async def is_ready() -> Response:
        """Readiness probe: 200 after warm-up and self-test, 503 before and while the server stops."""
        return JSONResponse({"ready": engine.ready}, 200 if engine.ready else 503)

    @operation("/metrics", dependencies=protected, response_class=PlainTextResponse, responses=errors())
    async def metrics() -> Response:
        """Prometheus metrics."""
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI, engine: Engine) -> None:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return FileResponse(PAGE / "docs.html", headers=headers)

    @app.get(videos.SAMPLE, include_in_schema=False)
    async def sample() -> Response:
        return FileResponse(DEMO_VIDEO)

    app.include_router(media.router(engine.hit_media))
    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _add_error_handlers(app: FastAPI, engine: Engine, keys: ApiKeys) -> None:
    @app.exception_handler(XClipError)
    async def on_error(request: Request, error: XClipError) -> Response:
        status, message = describe(error)
        request.scope[OUTCOME] = outcome_of(error)
        kind = "InternalError" if status == INTERNAL else type(error).__name__
        response = error_response(request, status, kind, message)
        if isinstance(error, OverloadedError):
            response.headers["Retry-After"] = str(engine.retry_after)
        elif isinstance(error, UnauthorizedError):
            response.headers["WWW-Authenticate"] = "Bearer"
        elif isinstance(error, (UploadTooLargeError, DiskFullError)):
            # The rest of the body is not read.
            response.headers["Connection"] = "close"
        return response

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        if "endpoint" not in request.scope:
            # Unknown paths need a key like known ones.
            try:
                keys.check(key_in(request.headers))
            except UnauthorizedError as unauthorized:
                return await on_error(request, unauthorized)
        response = error_response(request, error.status_code, "RequestError", str(error.detail))
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def on_invalid_request(request: Request, error: RequestValidationError | ValidationError) -> Response:
        return error_response(request, 422, "RequestError", first_problem(error))

    @app.exception_handler(Exception)
    async def on_unexpected(request: Request, _error: Exception) -> Response:
        # Starlette raises it once more, for the log.
        return error_response(request, INTERNAL, "InternalError", INTERNAL_MESSAGE)

    @app.exception_handler(ClientGoneError)
    @app.exception_handler(ClientDisconnect)
    async def on_disconnect(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)
