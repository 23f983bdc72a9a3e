"""Buffer of preprocessed frames, filled in any order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from xclip_runtime.video.decoder import Frame


class FrameBuffer:
    """Converts, preprocesses and keeps frames by number; several threads may add to it.

    Args:
        prepare: From uint8 RGB (H, W, 3) to what is kept of a frame.
    """

    def __init__(self, prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]) -> None:
        self._prepare = prepare
        self._lock = threading.Lock()
        self._helper: ThreadPoolExecutor | None = None
        self._pending: Future[None] | None = None
        self.frames: dict[int, NDArray[np.uint8]] = {}
        self.waited_ms = 0.0
        """Time that decoding waited for frames to be prepared, milliseconds, over all threads that add."""

    @contextmanager
    def helped(self) -> Iterator[None]:
        """Let another thread prepare a frame while the only one that adds goes on to the next."""
        with ThreadPoolExecutor(1, thread_name_prefix="xclip-prepare") as helper:
            self._helper = helper
            try:
                yield
                self._finish()
            finally:
                self._helper = self._pending = None

    def add(self, number: int, frame: Frame) -> None:
        """Prepare a frame and keep it."""
        if self._helper is None:
            with self._waiting():
                self._add(number, frame)
        else:
            self._finish()
            self._pending = self._helper.submit(self._add, number, frame)

    def _add(self, number: int, frame: Frame) -> None:
        self.frames[number] = self._prepare(frame.to_rgb())

    def _finish(self) -> None:
        if self._pending is not None:
            with self._waiting():
                self._pending.result()

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        with self._lock:
            self.waited_ms += (time.perf_counter() - started) * 1e3
