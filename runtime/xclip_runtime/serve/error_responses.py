"""Error responses: one line, never a traceback."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from xclip_runtime.errors import (
    BundleError,
    ClientLimitError,
    DeadlineError,
    DecoderCrashedError,
    DiskFullError,
    ForbiddenError,
    FramesError,
    LabelsError,
    MissingExtraError,
    ModelControlError,
    ModelLoadError,
    OverloadedError,
    StartingError,
    TensorError,
    UnauthorizedError,
    UnknownModelError,
    UploadTooLargeError,
    VideoError,
    XClipError,
)
from xclip_runtime.serve.http_protocol import route_path
from xclip_runtime.serve.logs import request_id

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError
    from starlette.requests import HTTPConnection

logger = logging.getLogger(__name__)

INTERNAL = 500
OUTCOME = "xclip.outcome"
"""Entry of an ASGI scope: the outcome for the metrics, where the status has several."""
INTERNAL_MESSAGE = "internal error: see the server's log"

_MAX_MESSAGE = 1000
"""Longest message, characters: it may name what the client has sent."""

_STATUS: tuple[tuple[type[XClipError], int], ...] = (
    (UnauthorizedError, 401),
    (ModelControlError, 403),
    (ModelLoadError, 400),
    (ForbiddenError, 403),
    (UploadTooLargeError, 413),
    (ClientLimitError, 429),
    (DiskFullError, 507),
    (OverloadedError, 503),
    (DeadlineError, 504),
    (DecoderCrashedError, 502),
    (VideoError, 422),
    (FramesError, 422),
    (UnknownModelError, 404),
    (TensorError, 400),
    (LabelsError, 422),
    (MissingExtraError, 501),
    (BundleError, 501),
)


def status_of(error: XClipError) -> int:
    """Return the HTTP status of an error; 500 for faults of the server itself."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), INTERNAL)


def outcome_of(error: Exception) -> str | None:
    """Return the outcome of an error for the metrics, where its status has several."""
    return "starting" if isinstance(error, StartingError) else None


def describe(error: Exception) -> tuple[int, str]:
    """Return the HTTP status and the message of an error for the client.

    The messages of internal errors may name paths and devices of the server: they are logged, not sent.
    """
    status = status_of(error) if isinstance(error, XClipError) else INTERNAL
    if status == INTERNAL:
        logger.error("unexpected error", exc_info=error)
        return INTERNAL, INTERNAL_MESSAGE
    return status, _shortened(str(error))


def first_problem(error: RequestValidationError | ValidationError) -> str:
    """Return the first problem of a validation error, with the name of its field."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("query", "body"))
    message = str(first["msg"]).removeprefix("Value error, ")
    return _shortened(f"{where}: {message}" if where else message)


def error_response(request: HTTPConnection, status: int, kind: str, message: str) -> JSONResponse:
    """Return the JSON response of an error; under /v2 the body that the Open Inference Protocol prescribes."""
    if route_path(request.scope).startswith("/v2"):
        return JSONResponse({"error": message}, status)
    return JSONResponse({"error": {"type": kind, "message": message, "request_id": request_id.get()}}, status)


def _shortened(message: str) -> str:
    return message if len(message) <= _MAX_MESSAGE else message[:_MAX_MESSAGE] + "…"
