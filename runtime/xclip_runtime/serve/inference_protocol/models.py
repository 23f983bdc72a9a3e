"""The models of the Open Inference Protocol, for HTTP and gRPC alike.

Each model NAME of the server is two: ``NAME`` takes prepared clips (UINT8), ``NAME_video`` encoded videos (BYTES).
"""

from __future__ import annotations

import asyncio
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from xclip_runtime.errors import ModelControlError, TensorError, UnknownModelError
from xclip_runtime.serve.inference_protocol.codec import Output, RequestedOutput
from xclip_runtime.serve.inference_protocol.tensors import MAX_NAME
from xclip_runtime.serve.served_model import gather
from xclip_runtime.serve.settings import VIDEOS_SUFFIX
from xclip_runtime.video import Views

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.serve.engine import Engine
    from xclip_runtime.serve.inference_protocol.codec import InferRequest
    from xclip_runtime.serve.inference_protocol.tensors import Input
    from xclip_runtime.serve.served_model import EncodedVideo, ServedModel
    from xclip_runtime.serve.stats import Statistics

LOGITS = "logits_per_video"
EMBEDS = "video_embeds"
VERSION = "1"
SERVER = "xclip-onnx"
EXTENSIONS = ("classification", "model_configuration", "model_repository", "statistics")
PLATFORM = "onnxruntime_onnx"

_TYPES = {"UINT8": "TYPE_UINT8", "BYTES": "TYPE_STRING", "FP32": "TYPE_FP32"}

Result = TypeVar("Result")


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
    def _max_batch_size(self) -> int:
        return self._engine.settings.limits.batch_size

    @property
    def _stats(self) -> Statistics:
        return self._served.stats[self.name]

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
            "platform": PLATFORM,
            "inputs": [self.input],
            "outputs": [{"name": name, "datatype": "FP32", "shape": shape} for name, shape in self._outputs.items()],
            "parameters": {"provider": model.provider, "precision": model.precision},
        }

    @property
    def config(self) -> dict[str, Any]:
        """Triton's configuration of the model."""
        limit, model = self._max_batch_size, self._served.model
        delay = round(1e6 * self._engine.settings.batch_delay)
        batching = {"preferred_batch_size": [self._served.batch_size], "max_queue_delay_microseconds": delay}
        return {
            "name": self.name,
            "platform": PLATFORM,
            "backend": "onnxruntime",
            "version_policy": {"latest": {"num_versions": 1}},
            "max_batch_size": limit,
            "input": [self._to_config(tensor) for tensor in self.metadata["inputs"]],
            "output": [self._to_config(tensor) for tensor in self.metadata["outputs"]],
            **({"dynamic_batching": batching} if limit else {}),
            "parameters": {
                "provider": {"string_value": model.provider},
                "precision": {"string_value": model.precision},
            },
        }

    @property
    def statistics(self) -> dict[str, Any]:
        """Triton's statistics of the model."""
        return self._stats.to_dict(self.name, VERSION, self._served.runs)

    async def infer(self, request: InferRequest, pack: Callable[[Sequence[Output]], Result]) -> Result:
        """Run the model and return its requested outputs, packed in a thread.

        Raises:
            TensorError: The request does not match the model.
            VideoError: A video cannot be read.
        """
        with self._stats.request():
            outputs = self._requested_outputs(request)
            videos = await self._encode(self._input(request))
            values = {LOGITS: await self._logits(videos), EMBEDS: _embeds(videos)}
            start = time.perf_counter()
            results = [Output(output, values[output.name], self._served.model.labels) for output in outputs]
            packed = await asyncio.to_thread(pack, results)
            self._stats.inference_stats.compute_output.add(1000 * (time.perf_counter() - start))
            return packed

    async def _logits(self, videos: Sequence[EncodedVideo]) -> NDArray[np.float32]:
        labels = await self._served.labels((), ())
        logits = []
        for video in videos:
            scores, prompt_ms = await self._served.score(video, labels)
            self._stats.stages(video.timings_ms, prompt_ms=prompt_ms, count=len(scores))
            logits.append(scores)
        return np.concatenate(logits)

    def _to_config(self, tensor: Mapping[str, Any]) -> dict[str, Any]:
        skipped = 1 if self._max_batch_size else 0
        return {"name": tensor["name"], "data_type": _TYPES[tensor["datatype"]], "dims": tensor["shape"][skipped:]}

    async def _encode(self, tensor: Input) -> list[EncodedVideo]:
        return [await self._served.encode_frames(await asyncio.to_thread(tensor.uint8))]

    def _input(self, request: InferRequest) -> Input:
        """Return the input once its shape is known to be right: nothing of its size is allocated before."""
        wanted, names = self.input, [tensor.name for tensor in request.inputs]
        if names != [wanted["name"]]:
            message = f"the inputs are {', '.join(names) or 'none'}: send {wanted['name']} alone"
            raise TensorError(message)
        tensor, limit = request.inputs[0], self._engine.settings.limits.batch_size
        if not tensor.shape or [-1, *tensor.shape[1:]] != wanted["shape"]:
            message = f"{tensor.name} has shape {list(tensor.shape)}: send {wanted['shape']}"
            raise TensorError(message)
        if not 1 <= tensor.shape[0] <= limit:
            message = f"the batch size is {tensor.shape[0]}: send 1 to {limit}"
            raise TensorError(message)
        return tensor

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
    def _max_batch_size(self) -> int:
        # By Triton's rules a model with batches has another dimension in its input.
        return 0

    @property
    def input(self) -> dict[str, Any]:
        """Metadata of the input."""
        return {"name": "video", "datatype": "BYTES", "shape": [-1]}

    async def _encode(self, tensor: Input) -> list[EncodedVideo]:
        videos = await asyncio.to_thread(tensor.strings)
        # Enough to use every decode worker: the videos of a request wait for each other, not all before other requests.
        places = asyncio.Semaphore(self._engine.settings.decode_workers)
        return await gather(self._encode_video(video, places) for video in videos)

    async def _encode_video(self, video: memoryview, places: asyncio.Semaphore) -> EncodedVideo:
        async with places:
            with self._engine.upload_dir.file() as path:
                await asyncio.to_thread(path.write_bytes, video)
                return await self._served.encode(path, "the video", views=Views())


def _embeds(videos: Sequence[EncodedVideo]) -> NDArray[np.float32]:
    return np.stack([features.video_embeds for video in videos for features in video.features])


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

    def statistics(self, model: str = "", version: str = "") -> list[dict[str, Any]]:
        """Return the statistics of a model, or of all loaded ones.

        Raises:
            UnknownModelError: There is no such model or version, or it is not loaded.
        """
        names = [model] if model else [entry["name"] for entry in self.index(ready=True)]
        return [self.get(name, version or VERSION).statistics for name in names]

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

    async def load(self, model: str, parameters: Iterable[str]) -> None:
        """Load or reload the bundle of a model.

        Args:
            model: Its name.
            parameters: Names of the parameters of the request.

        Raises:
            TensorError: Its configuration or files are to be replaced.
            ModelControlError: Clients may not.
            UnknownModelError: There is no such model.
            ModelLoadError: See `Registry.load`.
        """
        name = self._controlled(model)
        if any(parameter == "config" or parameter.startswith("file:") for parameter in parameters):
            message = "models are loaded as their folders are: send no config and no files"
            raise TensorError(message)
        await self._engine.registry.load(name)

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
            message = f"no model {model[:MAX_NAME]} version {version[:MAX_NAME]}: use {' or '.join(self._kinds)}"
            raise UnknownModelError(message)
        return self._kinds[model]
