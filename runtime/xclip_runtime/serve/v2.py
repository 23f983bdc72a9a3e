"""/v2: the Open Inference Protocol, so that clients of the field work as they are.

Model ``xclip`` takes prepared clips, uint8; ``xclip_video`` takes encoded videos, BYTES.
"""

from __future__ import annotations

import asyncio
import mmap
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, HTTPException, Request
from fastapi import Path as PathParameter
from fastapi.responses import JSONResponse, Response

from xclip_runtime._version import __version__
from xclip_runtime.errors import TensorError
from xclip_runtime.serve import tensors
from xclip_runtime.serve.tensors import WantedOutput
from xclip_runtime.serve.uploads import check_container, save_body
from xclip_runtime.serve.visits import admitted
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from xclip_runtime.serve.engine import Engine, Seen
    from xclip_runtime.serve.scratch import Scratch
    from xclip_runtime.serve.tensors import InferRequest, Input

CLIPS = "xclip"
VIDEOS = "xclip_video"
LOGITS = "logits_per_video"
EMBEDS = "video_embeds"
VERSION = "1"

_JSON_LENGTH = "Inference-Header-Content-Length"

Model = Annotated[str, PathParameter(description=f"{CLIPS} or {VIDEOS}")]


def router(engine: Engine, scratch: Scratch) -> APIRouter:
    """The routes of /v2."""
    routes = APIRouter(prefix="/v2")
    models = Models(engine, scratch)

    @routes.get("")
    async def server() -> dict[str, Any]:
        """Name, version and extensions of this server."""
        extensions = ["binary_tensor_data", "classification"]
        return {"name": "xclip-onnx", "version": __version__, "extensions": extensions}

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
            with scratch.file() as path:
                await visit.within_deadline(save_body(request, path))
                asked = await asyncio.to_thread(_parse, path, request)
                visit.shorten(asked.timeout)
                outputs = await visit.while_connected(models.run(model, asked))
        head = {"model_name": model, "model_version": VERSION, **({"id": asked.id} if asked.id else {})}
        body, json_bytes = tensors.pack(head, outputs, engine.model.labels)
        if json_bytes is None:
            return Response(body, media_type="application/json")
        return Response(body, headers={_JSON_LENGTH: str(json_bytes)}, media_type="application/octet-stream")

    return routes


class Models:
    """The two models: what they are called, take and give."""

    def __init__(self, engine: Engine, scratch: Scratch) -> None:
        self._engine = engine
        self._scratch = scratch
        bundle = engine.model.bundle
        self._clip_shape = (bundle.num_frames, bundle.image_size, bundle.image_size, 3)
        self._inputs: Mapping[str, Mapping[str, Any]] = {
            CLIPS: {"name": "pixel_values", "datatype": "UINT8", "shape": [-1, *self._clip_shape]},
            VIDEOS: {"name": "video", "datatype": "BYTES", "shape": [-1]},
        }
        width = int(bundle.manifest["model"]["projection_dim"])
        self._outputs = {LOGITS: [-1, len(engine.model.labels)], EMBEDS: [-1, width]}

    def check(self, model: str, version: str) -> None:
        """Raise 404 for a model or version that does not exist."""
        if model not in self._inputs or version != VERSION:
            raise HTTPException(404, f"there is no model {model} of version {version}: ask for {CLIPS} or {VIDEOS}")

    def metadata(self, model: str) -> dict[str, Any]:
        """The document that describes a model."""
        return {
            "name": model,
            "versions": [VERSION],
            "platform": "onnxruntime_onnx",
            "inputs": [self._inputs[model]],
            "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in self._outputs.items()],
            "parameters": {"provider": self._engine.model.provider, "precision": self._engine.model.precision},
        }

    async def run(self, model: str, asked: InferRequest) -> list[tuple[WantedOutput, NDArray[np.float32]]]:
        """The outputs that a request asks for.

        Raises:
            TensorError: It does not fit the model.
            VideoError: A video cannot be read.
        """
        wanted = self._wanted(asked)
        tensor = self._input(model, asked)
        seen = await (self._see_clips(tensor) if model == CLIPS else self._see_videos(tensor))
        labels = await self._engine.labels((), ())
        logits = [(await self._engine.score(one, labels))[0] for one in seen]
        embeds = [features.video_embeds for one in seen for features in one.features]
        values = {LOGITS: np.concatenate(logits), EMBEDS: np.stack(embeds)}
        return [(output, values[output.name]) for output in wanted]

    async def _see_clips(self, tensor: Input) -> list[Seen]:
        clips = await asyncio.to_thread(tensor.uint8)
        if clips.shape[1:] != self._clip_shape:
            message = f"pixel_values has the shape {list(clips.shape)}: send {[-1, *self._clip_shape]}"
            raise TensorError(message)
        self._check_batch(len(clips))
        return [await self._engine.see_frames(clips)]

    async def _see_videos(self, tensor: Input) -> list[Seen]:
        videos = await asyncio.to_thread(tensor.strings)
        self._check_batch(len(videos))
        return await self._engine.together(self._see_video(video) for video in videos)

    async def _see_video(self, video: bytes) -> Seen:
        with self._scratch.file() as path:
            await asyncio.to_thread(path.write_bytes, video)
            check_container(path, "the video")
            return await self._engine.see(path, "the video", views=Views())

    def _check_batch(self, count: int) -> None:
        most = self._engine.settings.limits.batch
        if not 1 <= count <= most:
            message = f"the batch holds {count} videos: send 1 to {most}"
            raise TensorError(message)

    def _input(self, model: str, asked: InferRequest) -> Input:
        name = str(self._inputs[model]["name"])
        if list(asked.inputs) != [name]:
            message = f"the inputs are {', '.join(asked.inputs) or 'none'}: send {name} alone"
            raise TensorError(message)
        return asked.inputs[name]

    def _wanted(self, asked: InferRequest) -> tuple[WantedOutput, ...]:
        unknown = next((output.name for output in asked.outputs if output.name not in self._outputs), None)
        if unknown is not None:
            message = f"there is no output {unknown}: ask for {' or '.join(self._outputs)}"
            raise TensorError(message)
        if any(output.classes and output.name != LOGITS for output in asked.outputs):
            message = f"only {LOGITS} has classes"
            raise TensorError(message)
        return asked.outputs or tuple(WantedOutput(name, asked.binary_outputs, 0) for name in self._outputs)


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
    return tensors.parse(memoryview(body), None if length is None else int(length))
