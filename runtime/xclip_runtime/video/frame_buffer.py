"""Buffer of preprocessed frames, filled in any order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray
    from typing_extensions import Self

    from xclip_runtime.video.decoder import Frame


class FrameBuffer:
    """Preprocessed frames by number; several threads may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reserve(())

    def reserve(self, numbers: Iterable[int]) -> None:
        """Forget all frames, and reserve memory for these."""
        self._places = {number: place for place, number in enumerate(sorted(set(numbers)))}
        self._memory: NDArray[np.uint8] | None = None
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, number: int) -> bool:
        return number in self._frames

    def __setitem__(self, number: int, prepared: NDArray[np.uint8]) -> None:
        """Keep a frame, copied where memory is reserved for it."""
        with self._lock:
            if self._memory is None:
                self._memory = np.empty((len(self._places), *prepared.shape), np.uint8)
            if number in self._places:
                place: NDArray[np.uint8] = self._memory[self._places[number]]
                place[...] = prepared
                prepared = place
            self._frames[number] = prepared

    def nearest(self, number: int) -> int:
        """Return the number of the frame that is nearest to another."""
        return min(self._frames, key=lambda kept: abs(kept - number))

    def stacked(self, numbers: list[int]) -> NDArray[np.uint8]:
        """Return frames, all of them kept: uint8 (T, …)."""
        if self._memory is not None and numbers == list(self._places) and len(self._frames) == len(numbers):
            return self._memory
        return np.stack([self._frames[number] for number in numbers])


class Preparer:
    """Converts and preprocesses frames of one decoder and keeps them, see `FrameBuffer`.

    Args:
        prepare: From uint8 RGB (H, W, 3) to what is kept of a frame.
        kept: Where to.
        may_help: Returns True where another thread may prepare a frame while the decoder goes on to the next.
    """

    def __init__(
        self, prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], kept: FrameBuffer, may_help: Callable[[], bool]
    ) -> None:
        self._prepare = prepare
        self._kept = kept
        self._may_help = may_help
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="xclip-prepare")
        self._preparing: Future[None] | None = None
        self.waited_ms = 0.0
        """How long decoding waited for frames to be prepared, milliseconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._helper:
            if kind is None:
                self._finish()

    def keep(self, number: int, frame: Frame) -> None:
        """Prepare a frame once the one before is done."""
        self._finish()
        if self._may_help():
            self._preparing = self._helper.submit(self._add, number, frame)
        else:
            with self._waiting():
                self._add(number, frame)

    def _finish(self) -> None:
        if self._preparing is not None:
            with self._waiting():
                self._preparing.result()
            self._preparing = None

    def _add(self, number: int, frame: Frame) -> None:
        self._kept[number] = self._prepare(frame.to_rgb())

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.waited_ms += (time.perf_counter() - started) * 1e3
