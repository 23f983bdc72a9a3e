"""What a server does with a video: decode it elsewhere, batch it through the model, score it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
import time
from collections import OrderedDict
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from xclip_runtime.errors import DeviceError, OverloadedError
from xclip_runtime.results import FrameUse, VideoFeatures
from xclip_runtime.selftest import golden_clip, self_test
from xclip_runtime.serve.batcher import Batcher
from xclip_runtime.serve.decode.pool import DecodePool
from xclip_runtime.serve.metrics import Metrics
from xclip_runtime.serve.text_cache import Words
from xclip_runtime.serve.upload_dir import Scratch

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.serve.settings import ServeSettings
    from xclip_runtime.serve.text_cache import LabelEmbeds
    from xclip_runtime.video import Views

logger = logging.getLogger(__name__)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Seen:
    """A video after the vision graph."""

    features: tuple[VideoFeatures, ...]
    """One a view."""
    frames: FrameUse
    timings_ms: dict[str, float]
    """Of the stages queue, decode, prepare and vision."""
    squares: NDArray[np.uint8] | None = None
    """The first view's frames, uint8 RGB (T, size, size, 3); None for a clip that was kept."""


class Engine:
    """A model behind bounded queues. Made on any thread, used on one event loop.

    Args:
        model: What answers.
        settings: How much at a time.
        index: What /v1/search looks through.
    """

    def __init__(self, model: XClip, settings: ServeSettings, index: VideoIndex | None = None) -> None:
        self.model = model
        self.index = index
        self.indexed = None if index is None else len(index)
        """Windows in the index when the server began, or None without one."""
        self.settings = settings
        self.words = Words(model, settings.limits)
        self.metrics = Metrics(model)
        self.scratch = Scratch()
        """Where uploads lie."""
        self.started = threading.Event()
        self.draining = False
        """Whether the server is about to end; what has been accepted is still answered."""
        self.in_flight = 0
        self.live = 0
        """Cameras connected."""
        self._kept: OrderedDict[str, Seen] = OrderedDict()
        self._seconds_per_request = 1.0

    async def start(self) -> None:
        """Warm up and test the model, start the workers; the server is ready when this returns.

        Raises:
            DeviceError: The model does not compute what it should on this machine.
            DecoderCrashedError: The workers do not start.
        """
        limits, metrics = self.settings.limits, self.metrics
        self.pool = DecodePool(
            self.model.bundle.num_frames,
            self.model.transform,
            workers=self.settings.decode_workers,
            limits=limits,
            on_restart=lambda reason: metrics.decode_restarts.labels(reason).inc(),
        )
        self.batcher: Batcher[NDArray[np.uint8], tuple[VideoFeatures, float]] = Batcher(
            self._run_batch,
            size=self.settings.batch_size,
            delay=self.settings.batch_delay,
            on_batch=metrics.batch_size.observe,
        )
        metrics.observe(lambda: self.in_flight, lambda: self.pool.waiting, lambda: self.batcher.waiting)
        begun = time.perf_counter()
        await asyncio.gather(_in_thread(self._warm_up), self.pool.start())
        self.batcher.start()
        self.started.set()
        fields = {"seconds": round(time.perf_counter() - begun, 2), "provider": self.model.provider}
        logger.info("ready", extra={"fields": fields})

    async def close(self) -> None:
        """Let go of threads, processes and files; nothing may be in flight any more."""
        await self.batcher.close()
        await self.pool.close()
        self.scratch.close()

    @property
    def ready(self) -> bool:
        """Whether load balancers should send requests here."""
        return self.started.is_set() and not self.draining

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """A place for one request, from its upload to its answer.

        Raises:
            OverloadedError: There is none, or the server is not ready.
        """
        if not self.started.is_set():
            message = "the server is still starting: try again in a moment"
            raise OverloadedError(message)
        if self.in_flight >= self.settings.queue_size:
            message = f"{self.in_flight} requests are being served, which is all this server takes: try again later"
            raise OverloadedError(message)
        self.in_flight += 1
        begun = time.perf_counter()
        try:
            yield
        finally:
            places = self.in_flight
            self.in_flight -= 1
            pace = (time.perf_counter() - begun) / places
            self._seconds_per_request += 0.1 * (pace - self._seconds_per_request)

    @contextmanager
    def live_session(self) -> Iterator[None]:
        """A place for one camera.

        Raises:
            OverloadedError: There is none, or the server is not ready.
        """
        if not self.ready or self.live >= self.settings.limits.live_sessions:
            message = f"{self.live} cameras are connected, or the server is starting or stopping: try again later"
            raise OverloadedError(message)
        self.live += 1
        try:
            yield
        finally:
            self.live -= 1

    @property
    def retry_after(self) -> int:
        """Seconds after which half of what is in flight should be answered, 1 to 60."""
        return min(max(1, round(self._seconds_per_request * self.in_flight / 2)), 60)

    async def see(self, path: Path, name: str, *, views: Views, start: float = 0.0, end: float | None = None) -> Seen:
        """Decode a file and run the vision graph on every view.

        Raises:
            VideoError: As :meth:`DecodePool.clip` says.
        """
        begun = time.perf_counter()
        clip = await self.pool.clip(path, name, views=views, start=start, end=end)
        waited_ms = 1000 * (time.perf_counter() - begun) - clip.decode_ms - clip.prepare_ms
        seen = await self.see_frames(clip.frames)
        timings = {
            **seen.timings_ms,
            "queue": seen.timings_ms["queue"] + waited_ms,
            "decode": clip.decode_ms,
            "prepare": clip.prepare_ms,
        }
        self._observe_stages(decode=clip.decode_ms, prepare=clip.prepare_ms, decode_queue=waited_ms)
        return replace(seen, frames=FrameUse.of(clip), timings_ms=timings)

    async def see_frames(self, views: NDArray[np.uint8]) -> Seen:
        """Run the vision graph on prepared frames, uint8 RGB (V, T, size, size, 3)."""
        begun = time.perf_counter()
        results = await self.together(self.batcher.submit(view) for view in views)
        vision_ms = sum(ms for _, ms in results)
        queue_ms = max(0.0, 1000 * (time.perf_counter() - begun) - vision_ms)
        self._observe_stages(vision=vision_ms, vision_queue=queue_ms)
        count = len(views[0])
        return Seen(
            features=tuple(features for features, _ in results),
            frames=FrameUse(tuple(range(count)), count, count),
            timings_ms={"queue": queue_ms, "decode": 0.0, "prepare": 0.0, "vision": vision_ms},
            squares=views[0],
        )

    @staticmethod
    async def together(coroutines: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
        """Like gather, but when one fails or the caller is cancelled none goes on."""
        tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()

    async def score(self, seen: Seen, labels: LabelEmbeds) -> tuple[NDArray[np.float32], float]:
        """Logits float32 (V, N) of every view, and the milliseconds that they took."""
        begun = time.perf_counter()
        logits = await _in_thread(self._prompt_all, seen.features, labels.embeds)
        prompt_ms = 1000 * (time.perf_counter() - begun)
        self._observe_stages(prompt=prompt_ms)
        return logits, prompt_ms

    async def labels(self, names: Sequence[str], texts: Sequence[str]) -> LabelEmbeds:
        """What to score with: the bundle's own labels where none are given.

        Args:
            names: Labels; those of the bundle keep its embeddings, others are encoded as they are.
            texts: Always encoded as they are.

        Raises:
            LabelsError: One is too long, or there are too many.
            MissingExtraError: They need the extra [text].
        """
        if not names and not texts:
            return self.words.own
        self.words.check([*names, *texts])
        return await _in_thread(self.words.encode, names, texts)

    def keep(self, seen: Seen) -> str:
        """Keep the features of a video for more labels, under a name that nobody can guess."""
        token = secrets.token_urlsafe(18)
        # Copies, for the features of a batch are views of one array that would be kept whole.
        features = tuple(VideoFeatures(one.video_embeds.copy(), one.img_features.copy()) for one in seen.features)
        self._kept[token] = replace(seen, features=features, squares=None)
        while len(self._kept) > self.settings.limits.kept_clips:
            self._kept.popitem(last=False)
        return token

    def kept(self, token: str) -> Seen | None:
        """The video that was kept under this name, or None when it is gone."""
        if token in self._kept:
            self._kept.move_to_end(token)
        return self._kept.get(token)

    def _warm_up(self) -> None:
        result = self_test(self.model)
        if not result.passed:
            message = (
                f"the self-test fails on {self.model.provider}: |Δlogit| is {result.max_abs_logit:.3g}, "
                f"{result.tolerance:.3g} is allowed: run `xclip-onnx doctor`, or choose --device cpu"
            )
            raise DeviceError(message)
        clip = golden_clip(self.model.bundle.num_frames, self.model.bundle.image_size)
        # A provider may prepare for each shape when it first sees it.
        for size in range(2, self.settings.batch_size + 1):
            self.model.features_batch(np.stack([clip] * size))

    def _run_batch(self, clips: Sequence[NDArray[np.uint8]]) -> list[tuple[VideoFeatures, float]]:
        begun = time.perf_counter()
        together = clips[0][None] if len(clips) == 1 else np.stack(clips)
        features = self.model.features_batch(together)
        vision_ms = 1000 * (time.perf_counter() - begun)
        return [(one, vision_ms) for one in features]

    def _prompt_all(self, features: Sequence[VideoFeatures], embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([self.model.prompt_logits(one, embeds) for one in features])

    def _observe_stages(self, **stages_ms: float) -> None:
        for stage, ms in stages_ms.items():
            self.metrics.stage_seconds.labels(stage).observe(ms / 1000)


async def _in_thread(function: Callable[..., Result], *args: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(None, partial(function, *args))
