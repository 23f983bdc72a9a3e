"""Overlapping windows over a stream of frames."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.results import Gap
from xclip_runtime.video.transforms import prepare_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.video.transforms import FrameTransform

# Half a millisecond is the rounding of timestamps in Matroska.
_ROUNDING = 5e-4


@dataclass(frozen=True)
class Window:
    """A stretch of a stream, sampled."""

    start: float
    """Seconds on the stream's clock."""
    end: float
    """Seconds; the last window of a stream may be shorter than the others."""
    squares: tuple[NDArray[np.uint8], ...] = field(repr=False)
    """The T sampled frames, uint8 RGB (size, size, 3); neighbouring windows share them."""
    numbers: range
    """The frames of the stream that fell into the window, counted from 0."""
    arrived: float
    """When its last frame was pushed, by `time.perf_counter`."""
    gap: Gap | None = None
    """What was lost between this window and the one before."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        """uint8 RGB (T, size, size, 3)."""
        return np.stack(self.squares)


@dataclass
class _Partial:
    """A window that lacks frames."""

    start: float
    first: int
    shown: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)
    squares: list[NDArray[np.uint8]] = field(default_factory=list)


class StreamWindow:
    """Cuts a stream into windows of `window` seconds, one every `hop` seconds, of T frames sampled uniformly in time.

    Window k lasts from k * hop, counted from the first frame; its frame i is the one on show at its moment
    (i + 1/2) * window / T, which for a constant rate is the sampling of `uniform_indices`. Whether a frame is needed is
    known when it arrives, so only T a window are prepared, each once, however many windows share it: at most
    (window / hop + 1) * (T + 1) prepared frames are held, whatever the rate of the stream.

    A hole longer than a window, or a clock that is set back by more than one, is a gap: windows begin anew behind it.

    Args:
        window: Seconds.
        hop: Seconds from the start of one window to the start of the next, at least window / T.
        num_frames: T.
        transform: The preprocessing profile.
        fps: Frames a second, if known; it decides how long the very first frame counts as shown.

    Raises:
        ValueError: `window` or `hop` is out of its range.
    """

    def __init__(
        self, window: float, hop: float, *, num_frames: int, transform: FrameTransform, fps: float | None = None
    ) -> None:
        if not 0 < window < float("inf"):
            msg = f"the window is {window} s: it must be longer than 0"
            raise ValueError(msg)
        if not window / num_frames <= hop < float("inf"):
            msg = f"the hop is {hop} s: it must be at least the window divided by {num_frames}, {window / num_frames} s"
            raise ValueError(msg)
        self._window = window
        self._hop = hop
        self._step = window / num_frames
        self._num_frames = num_frames
        self._transform = transform
        self._interval = 1 / fps if fps else 0.0
        self._last: float | None = None
        self._count = 0
        self._partials: list[_Partial] = []
        self._origin = self._done_until = 0.0
        self._opened = 0
        self._gap: Gap | None = None

    def push(self, frame: NDArray[np.uint8], t: float) -> list[Window]:
        """Add a frame; return the windows that it completes, mostly none.

        Args:
            frame: uint8 RGB (H, W, 3); it is copied.
            t: When it is shown, seconds on any clock; frames that come late or twice are ignored.

        Raises:
            FramesError: The frame has another dtype or shape.
        """
        return self.advance(t, lambda: prepare_frames([frame], self._transform)[0])

    def advance(self, t: float, prepare: Callable[[], NDArray[np.uint8]]) -> list[Window]:
        """Like `push`, for a frame that is decoded and prepared only when a window needs it."""
        arrived = time.perf_counter()
        if not math.isfinite(t):
            msg = f"a frame is shown at {t} s: give its time in seconds"
            raise ValueError(msg)
        if self._last is not None:
            step = t - self._last
            if -self._window <= step <= 0:
                return []
            if abs(step) > self._window:
                self.restart(t)
            else:
                self._interval = step
        if self._last is None:
            self._origin = self._done_until = t
        self._last = t
        until = t + self._interval - _ROUNDING
        while (start := self._origin + self._opened * self._hop) <= max(t, until):
            self._partials.append(_Partial(start, self._count))
            self._opened += 1
        self._count += 1
        square: NDArray[np.uint8] | None = None
        for partial in self._partials:
            wanted = self._slots_before(until, partial) - len(partial.squares)
            if wanted > 0 or not partial.shown:
                square = prepare() if square is None else square
                partial.shown.append((t, square))
                partial.squares.extend([square] * wanted)
        return self._take_complete(arrived)

    def restart(self, t: float) -> None:
        """Begin anew with the frame at `t`, since what lies between the last one and it is lost."""
        if self._last is not None:
            self._gap = Gap(self._last if self._gap is None else self._gap.start, t)
        self._partials.clear()
        self._opened = 0
        self._last = None

    def flush(self) -> list[Window]:
        """At the end of the stream: what no window has shown yet, as one shorter window, or nothing."""
        if self._last is None or not self._partials:
            return []
        end = self._last + self._interval
        if self._done_until > self._origin and end - self._done_until <= self._step / 2:
            return []
        partial = self._partials[0]
        moments = partial.start + (np.arange(self._num_frames) + 0.5) * (end - partial.start) / self._num_frames
        times = [t for t, _ in partial.shown]
        on_show = np.maximum(np.searchsorted(times, moments + _ROUNDING, side="right") - 1, 0)
        self._partials.clear()
        squares = tuple(partial.shown[i][1] for i in on_show)
        return [self._finish(partial.start, end, squares, partial.first, time.perf_counter())]

    def _slots_before(self, until: float, partial: _Partial) -> int:
        """How many of a window's T moments come before `until`."""
        return min(max(int(np.ceil((until - partial.start) / self._step - 0.5)), 0), self._num_frames)

    def _take_complete(self, arrived: float) -> list[Window]:
        complete = [p for p in self._partials if len(p.squares) == self._num_frames]
        self._partials = self._partials[len(complete) :]
        return [self._finish(p.start, p.start + self._window, tuple(p.squares), p.first, arrived) for p in complete]

    def _finish(
        self, start: float, end: float, squares: tuple[NDArray[np.uint8], ...], first: int, arrived: float
    ) -> Window:
        gap, self._gap = self._gap, None
        self._done_until = end
        return Window(start, end, squares, range(first, self._count), arrived, gap)
