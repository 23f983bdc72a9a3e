"""The models of the Open Inference Protocol, whichever way a request comes.

Model ``xclip`` takes prepared clips, uint8; ``xclip_video`` takes encoded videos, BYTES.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import TensorError, UnknownModelError
from xclip_runtime.serve.inference_protocol.codec import Output, WantedOutput
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xclip_runtime.serve.engine import Engine, Seen
    from xclip_runtime.serve.inference_protocol.codec import InferRequest, Input

CLIPS = "xclip"
VIDEOS = "xclip_video"
LOGITS = "logits_per_video"
EMBEDS = "video_embeds"
VERSION = "1"
SERVER = "xclip-onnx"


class Models:
    """The two models: what they are called, take and give.

    Args:
        engine: What runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        bundle = engine.model.bundle
        self._clip_shape = (bundle.num_frames, bundle.image_size, bundle.image_size, 3)
        self._inputs: Mapping[str, Mapping[str, Any]] = {
            CLIPS: {"name": "pixel_values", "datatype": "UINT8", "shape": [-1, *self._clip_shape]},
            VIDEOS: {"name": "video", "datatype": "BYTES", "shape": [-1]},
        }
        width = bundle.projection_dim
        self._outputs = {LOGITS: [-1, len(engine.model.labels)], EMBEDS: [-1, width]}

    def check(self, model: str, version: str) -> None:
        """Refuse what does not exist.

        Raises:
            UnknownModelError: There is no such model or version.
        """
        if model not in self._inputs or version != VERSION:
            message = f"there is no model {model} of version {version}: ask for {CLIPS} or {VIDEOS}"
            raise UnknownModelError(message)

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

    async def run(self, model: str, asked: InferRequest) -> list[Output]:
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
        return [Output(output, values[output.name], self._engine.model.labels) for output in wanted]

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
        with self._engine.scratch.file() as path:
            await asyncio.to_thread(path.write_bytes, video)
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
