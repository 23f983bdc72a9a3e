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
    """Window of a stream, sampled and prepared."""

    start: float
    """Seconds on the stream's clock."""
    end: float
    """Seconds; the last window of a stream may be shorter than the others."""
    prepared: tuple[NDArray[np.uint8], ...] = field(repr=False)
    """T prepared frames, uint8 RGB (size, size, 3); neighbouring windows share them."""
    numbers: range
    """Numbers of the stream's frames in the window, from 0."""
    arrived: float
    """Time at which its last frame was pushed, by `time.perf_counter`."""
    gap: Gap | None = None
    """Gap between this window and the one before."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Stack the prepared frames, uint8 RGB (T, size, size, 3)."""
        return np.stack(self.prepared)


@dataclass
class _Partial:
    """Window that still lacks frames."""

    start: float
    first: int
    shown: list[tuple[float, NDArray[np.uint8]]] = field(default_factory=list)
    prepared: list[NDArray[np.uint8]] = field(default_factory=list)


class StreamWindow:
    """Cutter of a stream into windows of `window` seconds, one every `hop` seconds, of T frames uniform in time.

    Window k begins at k * hop after the first frame. Its frame i is the one displayed (i + 1/2) * window / T after its
    start, which at a constant frame rate is the sampling of `uniform_indices`. A frame is prepared on arrival if a
    window needs it, once for all windows that share it: at most (window / hop + 1) * (T + 1) prepared frames are held,
    whatever the frame rate.

    A pause longer than a window, or a clock set back by more than one, is a gap: windows begin anew behind it.

    Args:
        window: Seconds.
        hop: Seconds from the start of one window to the start of the next, at least window / T.
        num_frames: T.
        transform: Preprocessing profile.
        fps: Frames a second, if known; the duration of the very first frame.

    Raises:
        ValueError: `window` or `hop` is out of its range.
    """

    def __init__(
        self, window: float, hop: float, *, num_frames: int, transform: FrameTransform, fps: float | None = None
    ) -> None:
        if not 0 < window < float("inf"):
            message = f"the window is {window} s: it must be longer than 0"
            raise ValueError(message)
        if not window / num_frames <= hop < float("inf"):
            message = (
                f"the hop is {hop} s: it must be at least the window divided by {num_frames}, {window / num_frames} s"
            )
            raise ValueError(message)
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
        """Add a frame; return the windows that it completes, usually none.

        Args:
            frame: uint8 RGB (H, W, 3); it is copied.
            t: Presentation time, seconds on any clock; frames that come late or twice are ignored.

        Raises:
            FramesError: The frame has another dtype or shape.
        """
        return self.advance(t, lambda: prepare_frames([frame], self._transform)[0])

    def advance(self, t: float, prepare: Callable[[], NDArray[np.uint8]]) -> list[Window]:
        """Add a frame as `push` does, but decode and prepare it only if a window needs it."""
        arrived = time.perf_counter()
        if not math.isfinite(t):
            message = f"the frame's time is {t} s: give a finite number of seconds"
            raise ValueError(message)
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
        frame: NDArray[np.uint8] | None = None
        for partial in self._partials:
            wanted = self._slots_before(until, partial) - len(partial.prepared)
            if wanted > 0 or not partial.shown:
                frame = prepare() if frame is None else frame
                partial.shown.append((t, frame))
                partial.prepared.extend([frame] * wanted)
        return self._take_complete(arrived)

    def restart(self, t: float) -> None:
        """Begin anew with the frame at `t`, after a gap."""
        if self._last is not None:
            self._gap = Gap(self._last if self._gap is None else self._gap.start, t)
        self._partials.clear()
        self._opened = 0
        self._last = None

    def flush(self) -> list[Window]:
        """End the stream; return the frames that no window has covered as one shorter window, or nothing."""
        if self._last is None or not self._partials:
            return []
        end = self._last + self._interval
        if self._done_until > self._origin and end - self._done_until <= self._step / 2:
            return []
        partial = self._partials[0]
        sample_times = partial.start + (np.arange(self._num_frames) + 0.5) * (end - partial.start) / self._num_frames
        times = [t for t, _ in partial.shown]
        on_show = np.maximum(np.searchsorted(times, sample_times + _ROUNDING, side="right") - 1, 0)
        self._partials.clear()
        prepared = tuple(partial.shown[i][1] for i in on_show)
        return [self._finish(partial.start, end, prepared, partial.first, time.perf_counter())]

    def _slots_before(self, until: float, partial: _Partial) -> int:
        """Count the sample times of a window that come before `until`."""
        return min(max(int(np.ceil((until - partial.start) / self._step - 0.5)), 0), self._num_frames)

    def _take_complete(self, arrived: float) -> list[Window]:
        complete = [p for p in self._partials if len(p.prepared) == self._num_frames]
        self._partials = self._partials[len(complete) :]
        return [self._finish(p.start, p.start + self._window, tuple(p.prepared), p.first, arrived) for p in complete]

    def _finish(
        self, start: float, end: float, prepared: tuple[NDArray[np.uint8], ...], first: int, arrived: float
    ) -> Window:
        gap, self._gap = self._gap, None
        self._done_until = end
        return Window(start, end, prepared, range(first, self._count), arrived, gap)
