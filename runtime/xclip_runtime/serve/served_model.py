"""One model behind its batching queue: decode, run the vision graph, score."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections import OrderedDict, defaultdict
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from xclip_runtime.errors import DeviceError
from xclip_runtime.inference.cached_frames import encode_windows
from xclip_runtime.inference.providers import CPU_PROVIDER
from xclip_runtime.results import FrameUse, VideoFeatures
from xclip_runtime.selftest import golden_clip, self_test
from xclip_runtime.serve.batcher import Batcher
from xclip_runtime.serve.stats import Duration, Statistics
from xclip_runtime.serve.text_cache import TextCache

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xclip_runtime.inference.cached_frames import WindowEncoder
    from xclip_runtime.model import XClip
    from xclip_runtime.results import Encoding
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.serve.decode.pool import DecodePool
    from xclip_runtime.serve.metrics import Metrics
    from xclip_runtime.serve.settings import ServeSettings
    from xclip_runtime.serve.text_cache import LabelEmbeds
    from xclip_runtime.streaming.windows import Window
    from xclip_runtime.video import Views

Result = TypeVar("Result")

BATCH_ON_GPU = 8


@dataclass(frozen=True)
class Opened:
    """An opened bundle."""

    model: XClip
    index: VideoIndex | None = None
    """Index for /v1/search, where this is the default model."""


@dataclass(frozen=True)
class EncodedVideo:
    """Output of the vision graph for one video."""

    features: tuple[VideoFeatures, ...]
    """One per view."""
    frames: FrameUse
    timings_ms: dict[str, float]
    """Milliseconds of the stages queue, decode, prepare and vision."""
    pixels: NDArray[np.uint8] | None = None
    """Frames of the first view, uint8 RGB (T, size, size, 3); None for a kept video."""


class CachedWindow(NamedTuple):
    """Window of a camera, with the encoder that caches the camera's frames."""

    encoder: WindowEncoder
    window: Window


class ServedModel:
    """A model with its batches, label embeddings and kept videos. Constructed on any thread, used on one event loop.

    Args:
        name: Name of the model on this server.
        opened: The model and its index.
        settings: Limits and queue sizes.
        metrics: Metrics of the server.
        pool: Decodes videos, for all models of the server.
    """

    def __init__(self, name: str, opened: Opened, settings: ServeSettings, metrics: Metrics, pool: DecodePool) -> None:
        self.name = name
        self.model, self.index = opened.model, opened.index
        self.indexed = None if self.index is None else len(self.index)
        """Number of windows in the index when it was opened, or None without an index."""
        self.settings = settings
        self.texts = TextCache(self.model, settings.limits)
        # Of its own, since requests without texts must not wait for a thread behind those of others.
        self._text_thread = ThreadPoolExecutor(1, "xclip-text")
        self.ready = False
        """True once the model is warm and has passed its self-test."""
        self._metrics = metrics
        self._pool = pool
        self.batch_size = settings.batch_size or (1 if self.model.provider == CPU_PROVIDER else BATCH_ON_GPU)
        self.batcher: Batcher[NDArray[np.uint8] | CachedWindow, tuple[VideoFeatures, float]] = Batcher(
            self._run_batch, size=self.batch_size, delay=settings.batch_delay, on_batch=metrics.batch_size.observe
        )
        self.live_windows = asyncio.Semaphore(self.batch_size)
        """Held for each window of a camera: all cameras together may be one batch ahead of a request."""
        self.runs: defaultdict[int, Duration] = defaultdict(Duration)
        """Runs of the vision graph by their batch size."""
        self.stats: defaultdict[str, Statistics] = defaultdict(Statistics)
        """Statistics of each model of the Open Inference Protocol."""
        self._kept: OrderedDict[str, EncodedVideo] = OrderedDict()
        self._users = 0
        self._unused = asyncio.Event()
        self._unused.set()

    async def start(self) -> None:
        """Warm up and self-test the model.

        Raises:
            DeviceError: The self-test fails.
        """
        await _in_thread(self._warm_up)
        self.batcher.start()
        self.ready = True

    async def close(self) -> None:
        """Stop the thread; queued work is cancelled."""
        self.ready = False
        self._text_thread.shutdown(wait=False, cancel_futures=True)
        await self.batcher.close()

    async def drain(self) -> None:
        """Wait until nobody uses the model, then close it."""
        await self._unused.wait()
        await self.close()

    @contextmanager
    def used(self) -> Iterator[ServedModel]:
        """Keep the model open until the end of the block."""
        self._users += 1
        self._unused.clear()
        try:
            yield self
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    async def encode(
        self,
        path: Path,
        name: str,
        *,
        views: Views,
        start: float = 0.0,
        end: float | None = None,
        track: int | None = None,
    ) -> EncodedVideo:
        """Decode a file and run the vision graph on every view.

        Raises:
            VideoError: See `DecodePool.clip`.
        """
        submitted = time.perf_counter()
        clip = await self._pool.clip(
            path,
            name,
            num_frames=self.model.bundle.num_frames,
            transform=self.model.transform,
            views=views,
            start=start,
            end=end,
            track=track,
        )
        queue_ms = 1000 * (time.perf_counter() - submitted) - clip.decode_ms - clip.prepare_ms
        self._observe_stages(decode=clip.decode_ms, prepare=clip.prepare_ms, decode_queue=queue_ms)
        encoded = await self.encode_frames(clip.frames)
        timings = {
            **encoded.timings_ms,
            "queue": encoded.timings_ms["queue"] + queue_ms,
            "decode": clip.decode_ms,
            "prepare": clip.prepare_ms,
        }
        return replace(encoded, frames=FrameUse.of(clip), timings_ms=timings)

    async def encode_frames(self, views: NDArray[np.uint8]) -> EncodedVideo:
        """Run the vision graph on prepared frames, uint8 RGB (V, T, size, size, 3)."""
        start = time.perf_counter()
        results = await gather(self.batcher.submit(view) for view in views)
        vision_ms = sum(ms for _, ms in results)
        queue_ms = max(0.0, 1000 * (time.perf_counter() - start) - vision_ms)
        self._observe_stages(vision=vision_ms, vision_queue=queue_ms)
        count = len(views[0])
        return EncodedVideo(
            features=tuple(features for features, _ in results),
            frames=FrameUse(tuple(range(count)), count, count),
            timings_ms={"queue": queue_ms, "decode": 0.0, "prepare": 0.0, "vision": vision_ms},
            pixels=views[0],
        )

    async def encode_window(self, encoder: WindowEncoder, window: Window) -> tuple[EncodedVideo, Encoding]:
        """Run the next window of a camera, whose frames are cached in `encoder`, in turn with all other work."""
        features, vision_ms = (await gather([self.batcher.submit(CachedWindow(encoder, window))]))[0]
        self._observe_stages(vision=vision_ms)
        encoding = encoder.encoding
        self._metrics.live_windows.labels("exact" if encoding.exact else "cached").inc()
        if encoder.refreshed and encoding.drift is not None:
            self._metrics.live_drift.observe(encoding.drift)
        count = len(window.prepared)
        video = EncodedVideo((features,), FrameUse(tuple(range(count)), count, count), {"vision": vision_ms})
        return video, encoding

    async def score(self, video: EncodedVideo, labels: LabelEmbeds) -> tuple[NDArray[np.float32], float]:
        """Return the logits of every view, float32 (V, N), and their time in milliseconds."""
        start = time.perf_counter()
        logits = await _in_thread(self._prompt_logits, video.features, labels.embeds)
        prompt_ms = 1000 * (time.perf_counter() - start)
        self._observe_stages(prompt=prompt_ms)
        return logits, prompt_ms

    async def labels(self, names: Sequence[str], texts: Sequence[str]) -> LabelEmbeds:
        """Return the label set of a request; that of the bundle if `names` and `texts` are empty.

        Args:
            names: Labels; those of the bundle keep its embeddings, others are encoded.
            texts: Always encoded.

        Raises:
            LabelsError: There are too many, or one is empty or too long.
            MissingExtraError: The extra [text] is not installed.
            BundleError: The bundle has no text tower.
        """
        if not names and not texts:
            return self.texts.bundle_labels
        await self.check_labels(names, texts)
        for part in await self._with_texts(self.texts.parts, names, texts):
            # Between parts a request whose client has left is cancelled.
            await self._with_texts(self.texts.encode, (), part)
        return await self._with_texts(self.texts.encode, names, texts)

    async def check_labels(self, names: Sequence[str], texts: Sequence[str]) -> None:
        """Check the label set of a request without encoding it; errors are those of `labels`."""
        self.texts.check([*names, *texts])
        if names or texts:
            await self._with_texts(self.texts.check_tokens, names, texts)

    async def _with_texts(self, function: Callable[..., Result], *args: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._text_thread, partial(function, *args))

    def keep(self, video: EncodedVideo) -> str:
        """Keep the features of a video for later requests; return an unguessable token."""
        token = secrets.token_urlsafe(18)
        # The features are views of their batch's array, which they would keep alive as a whole.
        features = tuple(VideoFeatures(one.video_embeds.copy(), one.img_features.copy()) for one in video.features)
        self._kept[token] = replace(video, features=features, pixels=None)
        while len(self._kept) > self.settings.limits.kept_videos:
            self._kept.popitem(last=False)
        return token

    def kept(self, token: str) -> EncodedVideo | None:
        """Return the kept video of a token, or None if it has been dropped."""
        if token in self._kept:
            self._kept.move_to_end(token)
        return self._kept.get(token)

    def _warm_up(self) -> None:
        result = self_test(self.model)
        if not result.passed:
            message = (
                f"the self-test fails on {self.model.provider}: |Δlogit| {result.max_abs_logit:.3g} exceeds "
                f"{result.tolerance:.3g}: run `xclip-onnx doctor`, or choose --device cpu"
            )
            raise DeviceError(message)
        clip = golden_clip(self.model.bundle.num_frames, self.model.bundle.image_size)
        # Some providers prepare for each shape when they first see it.
        for size in range(2, self.batch_size + 1):
            self.model.features_batch(np.stack([clip] * size))

    def _run_batch(self, items: Sequence[NDArray[np.uint8] | CachedWindow]) -> list[tuple[VideoFeatures, float]]:
        clips = self._run_clips([item for item in items if isinstance(item, np.ndarray)])
        windows = self._run_windows([item for item in items if isinstance(item, CachedWindow)])
        return [next(windows if isinstance(item, CachedWindow) else clips) for item in items]

    def _run_windows(self, items: Sequence[CachedWindow]) -> Iterator[tuple[VideoFeatures, float]]:
        """Run the windows of different cameras together."""
        start = time.perf_counter()
        found = encode_windows(items)
        vision_ms = 1000 * (time.perf_counter() - start)
        return iter([(features, vision_ms) for features, _ in found])

    def _run_clips(self, clips: Sequence[NDArray[np.uint8]]) -> Iterator[tuple[VideoFeatures, float]]:
        if not clips:
            return iter(())
        start = time.perf_counter()
        batch = clips[0][None] if len(clips) == 1 else np.stack(clips)
        features = self.model.features_batch(batch)
        vision_ms = 1000 * (time.perf_counter() - start)
        self.runs[len(clips)].add(vision_ms)
        return iter([(one, vision_ms) for one in features])

    def _prompt_logits(self, features: Sequence[VideoFeatures], embeds: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.stack([self.model.prompt_logits(one, embeds) for one in features])

    def _observe_stages(self, **stages_ms: float) -> None:
        for stage, ms in stages_ms.items():
            self._metrics.stage_seconds.labels(stage).observe(ms / 1000)


async def gather(coroutines: Iterable[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Gather results; cancel the rest when one fails or the caller is cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


async def _in_thread(function: Callable[..., Result], *args: Any) -> Result:
    return await asyncio.get_running_loop().run_in_executor(None, partial(function, *args))
