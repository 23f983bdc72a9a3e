"""/v2: the Open Inference Protocol over HTTP, so that clients of the field work as they are."""

from __future__ import annotations

import asyncio
import mmap
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response

from xclip_runtime._version import __version__
from xclip_runtime.errors import TensorError
from xclip_runtime.serve.inference_protocol import codec
from xclip_runtime.serve.inference_protocol.models import CLIPS, SERVER, VERSION, VIDEOS, Models
from xclip_runtime.serve.request import admitted
from xclip_runtime.serve.uploads import save_body

if TYPE_CHECKING:
    from pathlib import Path

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.codec import InferRequest

_JSON_LENGTH = "Inference-Header-Content-Length"

Model = Annotated[str, PathParameter(description=f"{CLIPS} or {VIDEOS}")]


def router(engine: Engine) -> APIRouter:
    """The routes of /v2."""
    routes = APIRouter(prefix="/v2")
    models = Models(engine)

    @routes.get("")
    async def server() -> dict[str, Any]:
        """Name, version and extensions of this server."""
        return {"name": SERVER, "version": __version__, "extensions": ["binary_tensor_data", "classification"]}

    @routes.get("/models/{model}")
    @routes.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def metadata(model: Model, version: str = VERSION) -> dict[str, Any]:
        """Inputs and outputs of a model."""
        models.check(model, version)
        return models.metadata(model)

    @routes.get("/models/{model}/ready")
    @routes.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def ready(model: Model, version: str = VERSION) -> Response:
        """Whether a model takes requests."""
        models.check(model, version)
        return JSONResponse({"name": model, "ready": engine.ready}, 200 if engine.ready else 503)

    @routes.post("/models/{model}/infer")
    @routes.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, model: Model, version: str = VERSION) -> Response:
        """Run a model on tensors, as JSON or as binary data."""
        models.check(model, version)
        async with admitted(engine, request) as visit:
            with engine.scratch.file() as path:
                await visit.within(save_body(request, path))
                asked = await asyncio.to_thread(_parse, path, request)
                visit.shorten(asked.timeout)
                outputs = await visit.while_connected(models.run(model, asked))
        head = {"model_name": model, "model_version": VERSION, **({"id": asked.id} if asked.id else {})}
        body, json_bytes = codec.pack(head, outputs)
        if json_bytes is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={_JSON_LENGTH: str(json_bytes)}, media_type="application/octet-stream")

    return routes


def _parse(path: Path, request: Request) -> InferRequest:
    length = request.headers.get(_JSON_LENGTH)
    if length is not None and not length.isdigit():
        message = f"{_JSON_LENGTH} is {length!r}: it is the number of bytes of JSON"
        raise TensorError(message)
    if request.headers.get("content-encoding", "identity") != "identity":
        message = "compressed bodies are not taken: a small one may become very large"
        raise TensorError(message)
    with path.open("rb") as file:
        # The pages are the file's own, which the system can drop and read again; so many requests need little memory.
        body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    return codec.parse(memoryview(body), None if length is None else int(length))
