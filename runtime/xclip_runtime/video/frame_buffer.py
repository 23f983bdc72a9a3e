"""The prepared frames of one video, put in their places as they come."""

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

    from xclip_runtime.video.frame_reader import Pictures


class KeptFrames:
    """Prepared frames by number; several threads may add to them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.expect(())

    def expect(self, numbers: Iterable[int]) -> None:
        """Forget all frames, and make room for these."""
        self._places = {number: place for place, number in enumerate(sorted(set(numbers)))}
        self._room: NDArray[np.uint8] | None = None
        self._frames: dict[int, NDArray[np.uint8]] = {}

    def __len__(self) -> int:
        return len(self._frames)

    def __contains__(self, number: int) -> bool:
        return number in self._frames

    def __setitem__(self, number: int, prepared: NDArray[np.uint8]) -> None:
        """Keep a frame, copied where room was made for it."""
        with self._lock:
            if self._room is None:
                self._room = np.empty((len(self._places), *prepared.shape), np.uint8)
            if number in self._places:
                place: NDArray[np.uint8] = self._room[self._places[number]]
                place[...] = prepared
                prepared = place
            self._frames[number] = prepared

    def nearest(self, number: int) -> int:
        """The number of the frame that is nearest to another."""
        return min(self._frames, key=lambda kept: abs(kept - number))

    def stacked(self, numbers: list[int]) -> NDArray[np.uint8]:
        """uint8 (T, …): the frames of so many numbers, all of them kept."""
        if self._room is not None and numbers == list(self._places):
            return self._room
        return np.stack([self._frames[number] for number in numbers])


class Preparer:
    """Prepares pictures of one decoder and keeps what comes out, see `KeptFrames`."""

    def __init__(
        self,
        prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        kept: KeptFrames,
        may_help: Callable[[], bool],
    ) -> None:
        """Start no thread yet.

        Args:
            prepare: From uint8 BGR (H, W, 3) to what is kept of a picture.
            kept: Where to.
            may_help: Whether another thread may prepare a picture while the decoder goes on to the next.
        """
        self._prepare = prepare
        self._kept = kept
        self._may_help = may_help
        self._helper = ThreadPoolExecutor(1, thread_name_prefix="xclip-prepare")
        self._preparing: Future[None] | None = None
        self.waited_ms = 0.0
        """How long decoding waited for pictures to be prepared, milliseconds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._helper:
            if kind is None:
                self._finish()

    def keep(self, number: int, pictures: Pictures) -> None:
        """Prepare the last picture of a decoder."""
        self._finish()  # The decoder overwrites the picture before with the next.
        picture = pictures.retrieve()
        if self._may_help():
            self._preparing = self._helper.submit(self._add, number, picture)
        else:
            with self._waiting():
                self._add(number, picture)

    def _finish(self) -> None:
        """Wait until the last picture is prepared."""
        if self._preparing is not None:
            with self._waiting():
                self._preparing.result()
            self._preparing = None

    def _add(self, number: int, picture: NDArray[np.uint8]) -> None:
        self._kept[number] = self._prepare(picture)

    @contextmanager
    def _waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.waited_ms += (time.perf_counter() - started) * 1e3
