"""/v2: the Open Inference Protocol over HTTP."""

from __future__ import annotations

import asyncio
import mmap
from typing import TYPE_CHECKING, Annotated, Any

from fastapi import APIRouter, Body, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, Field

from xclip_runtime._version import __version__
from xclip_runtime.errors import TensorError
from xclip_runtime.serve.inference_protocol import codec
from xclip_runtime.serve.inference_protocol.models import SERVER, VERSION, Models
from xclip_runtime.serve.request import admit
from xclip_runtime.serve.settings import VIDEOS_SUFFIX
from xclip_runtime.serve.uploads import save_body

if TYPE_CHECKING:
    from pathlib import Path

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.codec import InferRequest

_JSON_LENGTH = "Inference-Header-Content-Length"

Model = Annotated[str, PathParameter(description=f"Name of a model; with {VIDEOS_SUFFIX} it takes encoded videos.")]


class IndexOptions(BaseModel):
    """Body of /v2/repository/index."""

    ready: bool = Field(False, description="List the ready models alone.")


def router(engine: Engine) -> APIRouter:
    """Return the routes of /v2."""
    routes = APIRouter(prefix="/v2")
    models = Models(engine)

    @routes.get("")
    async def server() -> dict[str, Any]:
        """Server metadata."""
        return {"name": SERVER, "version": __version__, "extensions": ["binary_tensor_data", "classification"]}

    @routes.get("/models/{model}")
    @routes.get("/models/{model}/versions/{version}", include_in_schema=False)
    async def metadata(model: Model, version: str = VERSION) -> dict[str, Any]:
        """Model metadata: inputs and outputs."""
        return models.get(model, version).metadata

    @routes.get("/models/{model}/ready")
    @routes.get("/models/{model}/versions/{version}/ready", include_in_schema=False)
    async def ready(model: Model, version: str = VERSION) -> Response:
        """Model readiness."""
        is_ready = models.get(model, version).ready
        return JSONResponse({"name": model, "ready": is_ready}, 200 if is_ready else 503)

    @routes.post("/models/{model}/infer")
    @routes.post("/models/{model}/versions/{version}/infer", include_in_schema=False)
    async def infer(request: Request, model: Model, version: str = VERSION) -> Response:
        """Run inference on tensors, sent as JSON or as binary data."""
        models.get(model, version)
        async with admit(engine, request) as admitted:
            with engine.upload_dir.file() as path:
                await admitted.within(save_body(request, path))
                parsed = await asyncio.to_thread(_parse, path, request)
                admitted.shorten(parsed.timeout)
                with models.use(model, version) as used:
                    outputs = await admitted.while_connected(used.run(parsed))
        head = {"model_name": model, "model_version": VERSION, **({"id": parsed.id} if parsed.id else {})}
        body, json_bytes = codec.pack(head, outputs)
        if json_bytes is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={_JSON_LENGTH: str(json_bytes)}, media_type="application/octet-stream")

    @routes.post("/repository/index")
    async def repository_index(options: Annotated[IndexOptions | None, Body()] = None) -> list[dict[str, str]]:
        """All models of this server and their states."""
        return models.index(ready=options is not None and options.ready)

    @routes.post("/repository/models/{model}/load")
    async def load(model: Model) -> Response:
        """Load or reload a model and its sibling from their bundle, with --allow-model-control."""
        await models.load(model)
        return Response()

    @routes.post("/repository/models/{model}/unload")
    async def unload(model: Model) -> Response:
        """Unload a model and its sibling once the requests in progress are answered, with --allow-model-control."""
        await models.unload(model)
        return Response()

    return routes


def _parse(path: Path, request: Request) -> InferRequest:
    length = request.headers.get(_JSON_LENGTH)
    if length is not None and not length.isdigit():
        message = f"{_JSON_LENGTH} is {length!r}: send the length of the JSON in bytes"
        raise TensorError(message)
    if request.headers.get("content-encoding", "identity") != "identity":
        # A small body may decompress to a very large one.
        message = "compressed bodies are not supported: send the body as it is"
        raise TensorError(message)
    with path.open("rb") as file:
        # Mapped pages can be evicted and read again, so that many requests need little memory.
        body = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    return codec.parse(memoryview(body), None if length is None else int(length))
