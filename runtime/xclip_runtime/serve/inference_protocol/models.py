"""The models of the Open Inference Protocol, for HTTP and gRPC alike.

Model ``xclip`` takes prepared clips (UINT8), ``xclip_video`` encoded videos (BYTES).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import TensorError, UnknownModelError
from xclip_runtime.serve.inference_protocol.codec import Output, RequestedOutput
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xclip_runtime.serve.engine import EncodedVideo, Engine
    from xclip_runtime.serve.inference_protocol.codec import InferRequest, Input

CLIPS = "xclip"
VIDEOS = "xclip_video"
LOGITS = "logits_per_video"
EMBEDS = "video_embeds"
VERSION = "1"
SERVER = "xclip-onnx"


class Models:
    """The two models.

    Args:
        engine: Runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        bundle = engine.model.bundle
        self._clip_shape = (bundle.num_frames, bundle.image_size, bundle.image_size, 3)
        self._inputs: Mapping[str, Mapping[str, Any]] = {
            CLIPS: {"name": "pixel_values", "datatype": "UINT8", "shape": [-1, *self._clip_shape]},
            VIDEOS: {"name": "video", "datatype": "BYTES", "shape": [-1]},
        }
        self._outputs = {LOGITS: [-1, len(engine.model.labels)], EMBEDS: [-1, bundle.projection_dim]}

    def check(self, model: str, version: str) -> None:
        """Check that a model exists.

        Raises:
            UnknownModelError: The model or version is unknown.
        """
        if model not in self._inputs or version != VERSION:
            message = f"no model {model} version {version}: use {CLIPS} or {VIDEOS}"
            raise UnknownModelError(message)

    def metadata(self, model: str) -> dict[str, Any]:
        """Return the metadata of a model."""
        return {
            "name": model,
            "versions": [VERSION],
            "platform": "onnxruntime_onnx",
            "inputs": [self._inputs[model]],
            "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in self._outputs.items()],
            "parameters": {"provider": self._engine.model.provider, "precision": self._engine.model.precision},
        }

    async def run(self, model: str, request: InferRequest) -> list[Output]:
        """Run a model and return the requested outputs.

        Raises:
            TensorError: The request does not match the model.
            VideoError: A video cannot be read.
        """
        outputs = self._requested_outputs(request)
        tensor = self._input(model, request)
        videos = await (self._encode_clips(tensor) if model == CLIPS else self._encode_videos(tensor))
        labels = await self._engine.labels((), ())
        logits = [(await self._engine.score(video, labels))[0] for video in videos]
        embeds = [features.video_embeds for video in videos for features in video.features]
        values = {LOGITS: np.concatenate(logits), EMBEDS: np.stack(embeds)}
        return [Output(output, values[output.name], self._engine.model.labels) for output in outputs]

    async def _encode_clips(self, tensor: Input) -> list[EncodedVideo]:
        clips = await asyncio.to_thread(tensor.uint8)
        if clips.shape[1:] != self._clip_shape:
            message = f"pixel_values has shape {list(clips.shape)}: send {[-1, *self._clip_shape]}"
            raise TensorError(message)
        self._check_batch(len(clips))
        return [await self._engine.encode_frames(clips)]

    async def _encode_videos(self, tensor: Input) -> list[EncodedVideo]:
        videos = await asyncio.to_thread(tensor.strings)
        self._check_batch(len(videos))
        return await self._engine.gather(self._encode_video(video) for video in videos)

    async def _encode_video(self, video: bytes) -> EncodedVideo:
        with self._engine.upload_dir.file() as path:
            await asyncio.to_thread(path.write_bytes, video)
            return await self._engine.encode(path, "the video", views=Views())

    def _check_batch(self, count: int) -> None:
        limit = self._engine.settings.limits.batch_size
        if not 1 <= count <= limit:
            message = f"the batch size is {count}: send 1 to {limit}"
            raise TensorError(message)

    def _input(self, model: str, request: InferRequest) -> Input:
        name = str(self._inputs[model]["name"])
        if list(request.inputs) != [name]:
            message = f"the inputs are {', '.join(request.inputs) or 'none'}: send {name} alone"
            raise TensorError(message)
        return request.inputs[name]

    def _requested_outputs(self, request: InferRequest) -> tuple[RequestedOutput, ...]:
        unknown = next((output.name for output in request.outputs if output.name not in self._outputs), None)
        if unknown is not None:
            message = f"no output {unknown}: use {' or '.join(self._outputs)}"
            raise TensorError(message)
        if any(output.classes and output.name != LOGITS for output in request.outputs):
            message = f"only {LOGITS} supports classification"
            raise TensorError(message)
        return request.outputs or tuple(RequestedOutput(name, request.binary_outputs, 0) for name in self._outputs)
