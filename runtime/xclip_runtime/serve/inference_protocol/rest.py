"""/v2: the Open Inference Protocol over HTTP."""

from __future__ import annotations

import asyncio
import mmap
import re
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute

from xclip_runtime._version import __version__
from xclip_runtime.errors import TensorError, UploadTooLargeError
from xclip_runtime.serve.api.openapi import DESCRIPTIONS, errors, example
from xclip_runtime.serve.inference_protocol import codec, schemas
from xclip_runtime.serve.inference_protocol.models import EXTENSIONS, SERVER, VERSION, Models
from xclip_runtime.serve.request import Deadline, admit
from xclip_runtime.serve.settings import VIDEOS_SUFFIX
from xclip_runtime.serve.uploads import save_body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from pydantic import BaseModel

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.codec import InferRequest, Output

MAX_CONTROL_BYTES = 64 << 10
"""Maximum size of a body that is not an inference."""

_INFER_EXAMPLE = """\
import numpy as np
from tritonclient.http import InferenceServerClient, InferInput

video = InferInput("video", [1], "BYTES")
video.set_data_from_numpy(np.array([open("ride.mp4", "rb").read()], dtype=object))
print(InferenceServerClient("127.0.0.1:8000").infer("xclip_video", [video]).as_numpy("logits_per_video"))
"""
_DESCRIPTIONS = {
    **DESCRIPTIONS,
    400: "The request does not follow the protocol, or does not fit the model.",
    403: "The request comes from a page of another site, or clients may not load and unload models.",
    404: "There is no such model or version, or it is not loaded.",
    422: "A video cannot be read.",
}
_JSON_LENGTH = "Inference-Header-Content-Length"
_VERSIONED = "/models/{model}/versions/{version}"

Model = Annotated[str, PathParameter(description=f"Name of a model; with {VIDEOS_SUFFIX} it takes encoded videos.")]


def _version(request: Request) -> str:
    return str(request.path_params.get("version", VERSION))


Version = Annotated[str, Depends(_version)]
Options = TypeVar("Options")


class _IndexOptions(msgspec.Struct, frozen=True):
    ready: bool = False


class _LoadOptions(msgspec.Struct, frozen=True):
    parameters: dict[str, msgspec.Raw] | None = None


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the error responses of a route, with those that every route has."""
    # With a default FastAPI adds no 422 of its own.
    default = {"model": schemas.ProtocolError, "description": "Any other error."}
    return {"default": default, **errors(*statuses, model=schemas.ProtocolError, descriptions=_DESCRIPTIONS)}


def _body(kind: type[BaseModel], *, binary: bool = False) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": _schema(kind)}}
    if binary:
        content["application/octet-stream"] = {"schema": {"type": "string", "format": "binary"}}
    return {"requestBody": {"content": content, "required": binary}}


def _schema(kind: type[BaseModel]) -> dict[str, Any]:
    """Return a schema without references, as it is not among the document's components."""
    schema = kind.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolved(node: Any) -> Any:
        if isinstance(node, list):
            return [resolved(item) for item in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            return resolved(definitions[node["$ref"].rpartition("/")[2]])
        return {name: resolved(item) for name, item in node.items()}

    found: dict[str, Any] = resolved(schema)
    return found


def router(engine: Engine) -> APIRouter:
    """Return the routes of /v2."""
    routes = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])
    models = Models(engine)

    async def options_of(request: Request, kind: type[Options]) -> Options:
        return await Deadline(engine.settings.request_timeout).within(_read_options(request, kind))

    @routes.get("", responses=_errors())
    async def server() -> schemas.ServerMetadata:
        """Server metadata."""
        return schemas.ServerMetadata(name=SERVER, version=__version__, extensions=["binary_tensor_data", *EXTENSIONS])

    @routes.get("/models/stats", responses=_errors())
    async def all_statistics() -> schemas.ModelStatistics:
        """Statistics of all loaded models."""
        return schemas.ModelStatistics(model_stats=models.statistics())

    @routes.get("/models/{model}", responses=_errors(404))
    @routes.get(_VERSIONED, include_in_schema=False)
    async def metadata(model: Model, version: Version) -> schemas.ModelMetadata:
        """Model metadata: inputs and outputs."""
        return schemas.ModelMetadata(**models.get(model, version).metadata)

    @routes.get("/models/{model}/config", responses=_errors(404))
    @routes.get(f"{_VERSIONED}/config", include_in_schema=False)
    async def config(model: Model, version: Version) -> dict[str, Any]:
        """Model configuration, by Triton's names."""
        return models.get(model, version).config

    @routes.get("/models/{model}/stats", responses=_errors(404))
    @routes.get(f"{_VERSIONED}/stats", include_in_schema=False)
    async def statistics(model: Model, version: Version) -> schemas.ModelStatistics:
        """Model statistics, by Triton's names; `execution_count` and `batch_stats` count for both of its names."""
        return schemas.ModelStatistics(model_stats=models.statistics(model, version))

    @routes.get(
        "/models/{model}/ready",
        response_model=schemas.ModelReady,
        responses={**_errors(404), 503: {"model": schemas.ModelReady, "description": "The model is not ready."}},
    )
    @routes.get(f"{_VERSIONED}/ready", include_in_schema=False)
    async def ready(model: Model, version: Version) -> Response:
        """Model readiness."""
        is_ready = models.get(model, version).ready
        return JSONResponse({"name": model, "ready": is_ready}, 200 if is_ready else 503)

    @routes.post(
        "/models/{model}/infer",
        response_model=schemas.InferResponse,
        openapi_extra=_body(schemas.InferBody, binary=True),
        responses={
            200: {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}},
            **_errors(400, 404, 413, 422, 502, 503, 504, 507),
        },
    )
    @routes.post(f"{_VERSIONED}/infer", include_in_schema=False)
    async def infer(request: Request, model: Model, version: Version) -> Response:
        """Run inference on tensors, sent as JSON or as binary data behind the JSON.

        With binary data the header Inference-Header-Content-Length is the length of the JSON, in both directions.
        """
        models.get(model, version)
        async with admit(engine, request) as admitted:
            with engine.upload_dir.file() as path:
                await admitted.within(save_body(request, path))
                # Parsing is bounded by JSON_BYTES and off the event loop.
                parsed = await admitted.within(asyncio.to_thread(_parse, path, request))
                admitted.shorten(parsed.timeout)
                head = {"model_name": model, "model_version": VERSION, **({"id": parsed.id} if parsed.id else {})}

                def pack(outputs: Sequence[Output]) -> tuple[bytes, int | None]:
                    return codec.pack(head, outputs)

                with models.use(model, version) as used:
                    body, json_bytes = await admitted.while_connected(used.infer(parsed, pack))
        if json_bytes is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={_JSON_LENGTH: str(json_bytes)}, media_type="application/octet-stream")

    @routes.post("/repository/index", openapi_extra=_body(schemas.IndexOptions), responses=_errors(400, 413))
    async def repository_index(request: Request) -> list[schemas.IndexEntry]:
        """All models of this server and their states."""
        options = await options_of(request, _IndexOptions)
        return [schemas.IndexEntry(**entry) for entry in models.index(ready=options.ready)]

    @routes.post(
        "/repository/models/{model}/load",
        openapi_extra=_body(schemas.LoadOptions),
        responses=_errors(400, 404, 413),
    )
    async def load(request: Request, model: Model) -> Response:
        """Load or reload a model and its sibling from their bundle, with --allow-model-control."""
        options = await options_of(request, _LoadOptions)
        await models.load(model, options.parameters or ())
        return Response()

    @routes.post(
        "/repository/models/{model}/unload",
        openapi_extra=_body(schemas.LoadOptions),
        responses=_errors(400, 404, 413),
    )
    async def unload(request: Request, model: Model) -> Response:
        """Unload a model and its sibling once the requests in progress are answered, with --allow-model-control."""
        await options_of(request, _LoadOptions)
        await models.unload(model)
        return Response()

    for route in routes.routes:
        if isinstance(route, APIRoute):
            route.openapi_extra = {**(route.openapi_extra or {}), **_example(route)}
    return routes


def _example(route: APIRoute) -> dict[str, Any]:
    if route.path.endswith("/infer"):
        return {"x-codeSamples": [{"lang": "Python", "label": "tritonclient", "source": _INFER_EXAMPLE}]}
    method = "" if "GET" in (route.methods or ()) else "-X POST "
    return example(f"curl -f {method}http://127.0.0.1:8000{route.path.replace('{model}', 'xclip')}")


async def _read_options(request: Request, kind: type[Options]) -> Options:
    """Parse a small body; an empty one has the defaults.

    Raises:
        UploadTooLargeError: The body is over `MAX_CONTROL_BYTES`.
        TensorError: It is not JSON of that kind.
    """
    body = bytearray()
    async for chunk in request.stream():
        # The rest is read, too: a client that is still sending may not see the answer.
        body += chunk if len(body) <= MAX_CONTROL_BYTES else b""
    if len(body) > MAX_CONTROL_BYTES:
        message = f"request body exceeds {MAX_CONTROL_BYTES} bytes: send the options alone"
        raise UploadTooLargeError(message)
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except (msgspec.DecodeError, RecursionError) as error:
        message = f"the request does not follow the Open Inference Protocol: {error}"
        raise TensorError(message) from error


def _parse(path: Path, request: Request) -> InferRequest:
    length = request.headers.get(_JSON_LENGTH)
    if length is not None and not re.fullmatch(r"[0-9]{1,12}", length):
        message = f"{_JSON_LENGTH} is {length[:20]!r}: send the length of the JSON in bytes"
        raise TensorError(message)
    if request.headers.get("content-encoding", "identity") != "identity":
        # A small body may decompress to a very large one.
        message = "compressed bodies are not supported: send the body as it is"
        raise TensorError(message)
    with path.open("rb") as file:
        # Mapped pages can be evicted and read again, so that many requests need little memory.
        body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    return codec.parse(memoryview(body), None if length is None else int(length))
