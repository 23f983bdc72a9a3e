"""The engine of a server: admission, and what all models share."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from xclip_runtime.errors import OverloadedError, StartingError
from xclip_runtime.serve.api_keys import ApiKeys
from xclip_runtime.serve.clients import ClientLimit
from xclip_runtime.serve.decode.pool import DecodePool
from xclip_runtime.serve.hit_media import HitMedia
from xclip_runtime.serve.metrics import Metrics
from xclip_runtime.serve.registry import Registry
from xclip_runtime.serve.served_model import Opened, ServedModel
from xclip_runtime.serve.settings import DEFAULT_NAME
from xclip_runtime.serve.upload_dir import UploadDir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.serve.registry import Opener
    from xclip_runtime.serve.settings import ServeSettings

logger = logging.getLogger(__name__)


class Engine:
    """Models behind a bounded queue. Constructed on any thread, used on one event loop.

    Args:
        models: The model to serve, or a function that opens it for each name; the first is the default.
        settings: Limits and queue sizes.
        index: Index of a single model, for /v1/search.

    Raises:
        XClipError: A bundle cannot be opened.
    """

    def __init__(
        self, models: XClip | Mapping[str, Opener], settings: ServeSettings, index: VideoIndex | None = None
    ) -> None:
        self.settings = settings
        self.keys = ApiKeys(settings.api_keys)
        self.clients = ClientLimit(settings.client_limit)
        self.metrics = Metrics()
        self.upload_dir = UploadDir()
        self.hit_media = HitMedia()
        self.pool = DecodePool(
            workers=settings.decode_workers,
            limits=settings.limits,
            on_restart=lambda reason: self.metrics.decode_restarts.labels(reason).inc(),
        )
        openers = models if isinstance(models, Mapping) else {DEFAULT_NAME: lambda: Opened(models, index)}
        self.registry = Registry(openers, self._serve, self.metrics)
        self.started = threading.Event()
        self.draining = False
        """True while the server stops; admitted requests are still answered."""
        self.in_flight = 0
        """Admitted requests."""
        self.live = 0
        """Connected cameras."""
        self.live_frames = asyncio.Semaphore(max(1, settings.decode_workers // 2))
        """Held for each frame of a camera: all cameras together may keep half of the decode workers from requests."""
        self._seconds_per_request = 1.0

    async def start(self) -> None:
        """Warm up and self-test the models and start the decode workers.

        Raises:
            DeviceError: A self-test fails.
            DecoderCrashedError: The workers do not start.
        """
        self.metrics.observe(lambda: self.in_flight, lambda: self.pool.waiting, lambda: self.registry.waiting)
        start = time.perf_counter()
        await asyncio.gather(self.registry.start(), self.pool.start())
        self.started.set()
        fields = {"seconds": round(time.perf_counter() - start, 2), **self.registry.providers}
        logger.info("ready", extra={"fields": fields})

    async def close(self) -> None:
        """Stop threads and processes and delete files; no request may be in flight."""
        await self.registry.close()
        await self.pool.close()
        self.upload_dir.close()

    @property
    def ready(self) -> bool:
        """True if load balancers should send requests."""
        if self.settings.unready_when_full and self.in_flight >= self.settings.queue:
            return False
        return self.started.is_set() and not self.draining

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place in the queue for one request, from its upload to its response.

        Raises:
            OverloadedError: The queue is full, or the server is not ready.
        """
        if not self.started.is_set():
            message = "the server is still starting: try again later"
            raise StartingError(message)
        if self.in_flight >= self.settings.queue:
            message = f"the queue is full ({self.in_flight} requests): try again later"
            raise OverloadedError(message)
        self.in_flight += 1
        start = time.perf_counter()
        try:
            yield
        finally:
            concurrent = self.in_flight
            self.in_flight -= 1
            pace = (time.perf_counter() - start) / concurrent
            self._seconds_per_request += 0.1 * (pace - self._seconds_per_request)

    @contextmanager
    def live_connection(self) -> Iterator[None]:
        """Hold a place for one camera.

        Raises:
            OverloadedError: Too many cameras are connected, or the server is not ready.
        """
        if self.draining or not self.started.is_set():
            message = "the server is starting or stopping: try again later"
            raise StartingError(message)
        if self.live >= self.settings.limits.live_connections:
            message = f"too many cameras ({self.live} are connected): try again later"
            raise OverloadedError(message)
        self.live += 1
        try:
            yield
        finally:
            self.live -= 1

    @property
    def retry_after(self) -> int:
        """Seconds in which half of the requests in flight should be answered, 1 to 60."""
        return min(max(1, round(self._seconds_per_request * self.in_flight / 2)), 60)

    def _serve(self, name: str, opened: Opened) -> ServedModel:
        return ServedModel(name, opened, self.settings, self.metrics, self.pool)
