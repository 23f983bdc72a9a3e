"""The ASGI application: health, /v1, metrics, the page and its documentation."""

from __future__ import annotations

import asyncio
import logging
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from xclip_runtime._version import __version__
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import OverloadedError, XClipError
from xclip_runtime.serve.api import live, search, videos
from xclip_runtime.serve.error_responses import INTERNAL, INTERNAL_MESSAGE, error_reply, first_problem, status_of
from xclip_runtime.serve.inference_protocol import rest
from xclip_runtime.serve.metrics import CONTENT_TYPE
from xclip_runtime.serve.middleware import CLIENT_GONE, ApiKeys, BodyLimit, Observed
from xclip_runtime.serve.request import ClientGoneError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from starlette.types import ASGIApp

    from xclip_runtime.serve.engine import Engine

logger = logging.getLogger(__name__)

PAGE = Path(__file__).parent / "page"

# The page is ours alone: no script, style, font or picture from anywhere else, and nobody may frame it.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def create_app(engine: Engine, on_failure: Callable[[Exception], None] = lambda _: None) -> ASGIApp:
    """The application around an engine, which starts and ends with it.

    Args:
        engine: What answers.
        on_failure: Called when the engine does not start; until then and after the server is alive, not ready.
    """

    async def start() -> None:
        try:
            await engine.start()
        except Exception as error:  # noqa: BLE001 - whatever it is, the server must not run without a model
            on_failure(error)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        starting = asyncio.ensure_future(start())
        yield
        await starting
        await engine.close()

    app = FastAPI(
        title="xclip-onnx",
        version=__version__,
        description="Says what happens in a video. X-CLIP on ONNX Runtime.",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
    )
    app.include_router(videos.router(engine))
    app.include_router(rest.router(engine))
    app.include_router(live.router(engine))
    if engine.index is not None:
        app.include_router(search.router(engine, engine.index))
    _add_operations(app, engine)
    _add_page(app, engine)
    _add_errors(app, engine)
    limited = BodyLimit(app, engine.settings.limits.upload_bytes)
    return Observed(ApiKeys(limited, engine.settings.api_keys), engine.metrics)


def _add_operations(app: FastAPI, engine: Engine) -> None:
    @app.get("/v2/health/live", tags=["operations"])
    async def is_live() -> dict[str, bool]:
        """Whether this process answers."""
        return {"live": True}

    @app.get("/v2/health/ready", tags=["operations"])
    async def is_ready() -> Response:
        """Whether it takes requests: only after its warm-up and self-test."""
        return JSONResponse({"ready": engine.ready}, 200 if engine.ready else 503)

    @app.get("/metrics", tags=["operations"])
    async def metrics() -> Response:
        """What Prometheus reads."""
        return Response(engine.metrics.text(), media_type=CONTENT_TYPE)


def _add_page(app: FastAPI, engine: Engine) -> None:
    headers = {"Content-Security-Policy": CONTENT_SECURITY_POLICY, "X-Content-Type-Options": "nosniff"}

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return FileResponse(PAGE / "index.html", headers=headers)

    @app.get("/docs", include_in_schema=False)
    async def documentation() -> Response:
        return FileResponse(PAGE / "docs.html", headers=headers)

    if videos.sample(engine):

        @app.get(videos.SAMPLE, include_in_schema=False)
        async def sample() -> Response:
            return FileResponse(DEMO_VIDEO)

    app.mount("/page", StaticFiles(directory=PAGE), name="page")


def _add_errors(app: FastAPI, engine: Engine) -> None:
    @app.exception_handler(XClipError)
    async def known(request: Request, error: XClipError) -> Response:
        status = status_of(error)
        if status == INTERNAL:
            # It is about this server, its paths and devices: for the log, and not for strangers.
            logger.error("unexpected error", exc_info=error)
            return error_reply(request, INTERNAL, "InternalError", INTERNAL_MESSAGE)
        reply = error_reply(request, status, type(error).__name__, str(error))
        if isinstance(error, OverloadedError):
            reply.headers["Retry-After"] = str(engine.retry_after)
        return reply

    @app.exception_handler(HTTPException)
    async def refused(request: Request, error: HTTPException) -> Response:
        return error_reply(request, error.status_code, "RequestError", str(error.detail))

    @app.exception_handler(RequestValidationError)
    @app.exception_handler(ValidationError)
    async def invalid(request: Request, error: RequestValidationError | ValidationError) -> Response:
        return error_reply(request, 422, "RequestError", first_problem(error))

    @app.exception_handler(ClientGoneError)
    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=CLIENT_GONE)
