"""The models of the Open Inference Protocol, for HTTP and gRPC alike.

Each model NAME of the server is two: ``NAME`` takes prepared clips (UINT8), ``NAME_video`` encoded videos (BYTES).
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import ModelControlError, TensorError, UnknownModelError
from xclip_runtime.serve.inference_protocol.codec import Output, RequestedOutput
from xclip_runtime.serve.served_model import gather
from xclip_runtime.serve.settings import VIDEOS_SUFFIX
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.codec import InferRequest, Input
    from xclip_runtime.serve.served_model import EncodedVideo, ServedModel

LOGITS = "logits_per_video"
EMBEDS = "video_embeds"
VERSION = "1"
SERVER = "xclip-onnx"


class ProtocolModel:
    """A model of the protocol.

    Args:
        engine: The engine.
        served: Runs it.
    """

    def __init__(self, engine: Engine, served: ServedModel) -> None:
        self._engine = engine
        self._served = served
        bundle = served.model.bundle
        self._clip_shape = (bundle.num_frames, bundle.image_size, bundle.image_size, 3)
        self._outputs = {LOGITS: [-1, len(served.model.labels)], EMBEDS: [-1, bundle.projection_dim]}

    @property
    def name(self) -> str:
        """Name by the protocol."""
        return self._served.name

    @property
    def ready(self) -> bool:
        """True if clients should send requests."""
        return self._engine.ready and self._served.ready

    @property
    def input(self) -> dict[str, Any]:
        """Metadata of the input."""
        return {"name": "pixel_values", "datatype": "UINT8", "shape": [-1, *self._clip_shape]}

    @property
    def metadata(self) -> dict[str, Any]:
        """Metadata of the model."""
        model = self._served.model
        return {
            "name": self.name,
            "versions": [VERSION],
            "platform": "onnxruntime_onnx",
            "inputs": [self.input],
            "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in self._outputs.items()],
            "parameters": {"provider": model.provider, "precision": model.precision},
        }

    async def run(self, request: InferRequest) -> list[Output]:
        """Run the model and return the requested outputs.

        Raises:
            TensorError: The request does not match the model.
            VideoError: A video cannot be read.
        """
        outputs = self._requested_outputs(request)
        videos = await self._encode(self._input(request))
        labels = await self._served.labels((), ())
        logits = [(await self._served.score(video, labels))[0] for video in videos]
        embeds = [features.video_embeds for video in videos for features in video.features]
        values = {LOGITS: np.concatenate(logits), EMBEDS: np.stack(embeds)}
        return [Output(output, values[output.name], self._served.model.labels) for output in outputs]

    async def _encode(self, tensor: Input) -> list[EncodedVideo]:
        clips = await asyncio.to_thread(tensor.uint8)
        if clips.shape[1:] != self._clip_shape:
            message = f"pixel_values has shape {list(clips.shape)}: send {[-1, *self._clip_shape]}"
            raise TensorError(message)
        self._check_batch(len(clips))
        return [await self._served.encode_frames(clips)]

    def _check_batch(self, count: int) -> None:
        limit = self._engine.settings.limits.batch_size
        if not 1 <= count <= limit:
            message = f"the batch size is {count}: send 1 to {limit}"
            raise TensorError(message)

    def _input(self, request: InferRequest) -> Input:
        name = str(self.input["name"])
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


class VideoModel(ProtocolModel):
    """A model of the protocol that takes encoded videos."""

    @property
    def name(self) -> str:
        """Name by the protocol."""
        return self._served.name + VIDEOS_SUFFIX

    @property
    def input(self) -> dict[str, Any]:
        """Metadata of the input."""
        return {"name": "video", "datatype": "BYTES", "shape": [-1]}

    async def _encode(self, tensor: Input) -> list[EncodedVideo]:
        videos = await asyncio.to_thread(tensor.strings)
        self._check_batch(len(videos))
        return await gather(self._encode_video(video) for video in videos)

    async def _encode_video(self, video: bytes) -> EncodedVideo:
        with self._engine.upload_dir.file() as path:
            await asyncio.to_thread(path.write_bytes, video)
            return await self._served.encode(path, "the video", views=Views())


class Models:
    """The models of the protocol, by their names.

    Args:
        engine: Runs them.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        names = engine.registry.names
        self._kinds: Mapping[str, tuple[str, type[ProtocolModel]]] = {
            name + suffix: (name, kind)
            for name in names
            for suffix, kind in (("", ProtocolModel), (VIDEOS_SUFFIX, VideoModel))
        }

    def get(self, model: str, version: str = VERSION) -> ProtocolModel:
        """Return a loaded model; use `use` to run it.

        Raises:
            UnknownModelError: There is no such model or version, or it is not loaded.
        """
        name, kind = self._find(model, version)
        return kind(self._engine, self._engine.registry.get(name))

    @contextmanager
    def use(self, model: str, version: str = VERSION) -> Iterator[ProtocolModel]:
        """Hold a loaded model, which stays open for the block.

        Raises:
            UnknownModelError: There is no such model or version, or it is not loaded.
        """
        name, kind = self._find(model, version)
        with self._engine.registry.use(name) as served:
            yield kind(self._engine, served)

    def index(self, *, ready: bool = False) -> list[dict[str, str]]:
        """Return name, version, state and reason of every model, or of the ready ones alone."""
        states = {state.name: state for state in self._engine.registry.states}
        entries = [(model, states[name]) for model, (name, _) in self._kinds.items()]
        return [
            {
                "name": model,
                "version": VERSION,
                "state": "READY" if state.ready else "UNAVAILABLE",
                "reason": state.reason,
            }
            for model, state in entries
            if state.ready or not ready
        ]

    async def load(self, model: str) -> None:
        """Load or reload the bundle of a model.

        Raises:
            ModelControlError: Clients may not.
            UnknownModelError: There is no such model.
            ModelLoadError: See `Registry.load`.
        """
        await self._engine.registry.load(self._controlled(model))

    async def unload(self, model: str) -> None:
        """Unload the bundle of a model.

        Raises:
            ModelControlError: Clients may not.
            UnknownModelError: There is no such model.
        """
        await self._engine.registry.unload(self._controlled(model))

    def _controlled(self, model: str) -> str:
        if not self._engine.settings.allow_model_control:
            message = "clients may not load and unload models: start the server with --allow-model-control"
            raise ModelControlError(message)
        return self._find(model, VERSION)[0]

    def _find(self, model: str, version: str) -> tuple[str, type[ProtocolModel]]:
        if model not in self._kinds or version != VERSION:
            message = f"no model {model} version {version}: use {' or '.join(self._kinds)}"
            raise UnknownModelError(message)
        return self._kinds[model]
