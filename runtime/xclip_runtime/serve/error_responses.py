"""Errors as clients see them: one sentence, never a traceback."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import JSONResponse

from xclip_runtime.errors import (
    BundleError,
    DeadlineError,
    DecoderCrashedError,
    FramesError,
    LabelsError,
    MissingExtraError,
    OverloadedError,
    TensorError,
    UnauthorizedError,
    UnknownModelError,
    UploadTooLargeError,
    VideoError,
    XClipError,
)
from xclip_runtime.serve.logs import request_id

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError
    from starlette.requests import Request

INTERNAL = 500
INTERNAL_MESSAGE = "something went wrong here: the server's log says what"

_STATUS: tuple[tuple[type[XClipError], int], ...] = (
    (UnauthorizedError, 401),
    (UploadTooLargeError, 413),
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
    """The HTTP status of an error; 500 where it is the server's own fault."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), INTERNAL)


def first_problem(error: RequestValidationError | ValidationError) -> str:
    """What is wrong with the first field that is wrong."""
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part not in ("query", "body"))
    message = str(first["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message


def error_reply(request: Request, status: int, kind: str, message: str) -> JSONResponse:
    """The body of an error: an object of ours, or under /v2 the one of the Open Inference Protocol."""
    if request.url.path.startswith("/v2"):
        return JSONResponse({"error": message}, status)
    return JSONResponse({"error": {"type": kind, "message": message, "request_id": request_id.get()}}, status)
