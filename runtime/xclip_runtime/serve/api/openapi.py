"""Parts of the OpenAPI document beyond the types of requests and responses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from xclip_runtime.serve.api.schemas import ErrorResponse, LiveOptions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

_OPENING = json.dumps(LiveOptions.model_validate({}).model_dump())
DESCRIPTION = f"""\
Video classification with X-CLIP on ONNX Runtime.

Every response carries `X-Request-ID`: the request's own, or a new one. With `X-Request-Timeout: SECONDS` a client asks
for less time than the server allows. Every error of /v1 is JSON with a type, a one-line message and the request's id.

## WebSocket /v1/live

Frames of a camera in, labels of its windows out. The client opens with a JSON text, all fields optional:

```json
{_OPENING}
```

`window` and `hop` are seconds, at most 60, and a window is at most 16 hops long; `smooth` is the time constant of
the smoothing. The server answers `{{"type": "ready"}}`. The client then sends each frame as bytes: its time in seconds,
0 to 1e10, as little-endian float64, followed by a JPEG, PNG or WebP. A text of `{{"labels": […], "texts": […]}}`
replaces the label set. The server sends `{{"type": "window", …}}` for each window, with the fields of `WindowResult`,
and `{{"type": "error", "message": …}}` before it closes the connection: with 1007 for what is invalid, 1008 without a
key or after 30 seconds of silence, 1011 for an error of its own, and 1013 when it is full.
"""

DESCRIPTIONS = {
    400: "The body cannot be parsed, or the timeout is not a number of seconds.",
    401: "The API key is missing or unknown.",
    403: "The request comes from a page of another site, or names a host that is not the server's.",
    404: "The model is unknown, or the kept video has been dropped.",
    413: "The body exceeds the size limit.",
    422: "The video or an option is invalid.",
    429: "This client has too many requests in flight; see Retry-After.",
    500: "Internal error; see the server's log.",
    501: "Labels outside the bundle need the extra [text] and a bundle with a text tower.",
    502: "The decode worker of this video crashed.",
    503: "The queue is full, the server is starting, or its decode workers do not answer; see Retry-After.",
    504: "The request timed out.",
    507: "The server's disk has no room for the upload.",
}


def errors(
    *statuses: int, model: type[BaseModel] = ErrorResponse, descriptions: Mapping[int, str] = DESCRIPTIONS
) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route, with those that every route has."""
    return {
        status: {"model": model, "description": descriptions[status]}
        for status in sorted({401, 403, 429, 500, *statuses})
    }


UPLOAD_ERRORS = errors(400, 404, 413, 422, 501, 502, 503, 504, 507)


def example(command: str) -> dict[str, Any]:
    """Return an example of a route, a shell command."""
    return {"x-codeSamples": [{"lang": "Shell", "label": "curl", "source": command}]}


def upload_body(options: type[BaseModel], command: str) -> dict[str, Any]:
    """Return the body of a route that takes a video or the token of a kept one, and an example."""
    schema = options.model_json_schema()
    properties, binary = schema["properties"], {"type": "string", "format": "binary"}
    closed = {"type": "object", "additionalProperties": False}
    form = {**closed, "required": ["video"], "properties": {"video": binary, **properties}}
    kept = {**closed, "required": ["token"], "properties": {**properties, "token": {"type": "string"}}}
    return {
        "requestBody": {
            "required": True,
            "description": "A form with the video and any of the options, a bare video, or JSON with the options and "
            "the `token` of a kept video. Options of the body take precedence over those of the address.",
            "content": {
                "multipart/form-data": {"schema": form},
                "application/octet-stream": {"schema": binary},
                "application/json": {"schema": kept},
            },
        },
        **example(command),
    }
