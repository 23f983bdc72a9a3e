"""Overlapping windows over a stream of frames."""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xclip_runtime.results import Gap
from xclip_runtime.video.sampling import uniform_indices
from xclip_runtime.video.transforms import prepare_frames

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.video.transforms import FrameTransform

    Prepared = NDArray[np.uint8]

# Half a millisecond is the rounding of timestamps in Matroska.
_ROUNDING = 5e-4

MIN_WINDOW = 0.01
"""Shortest window, seconds: 32 frames of the fastest cameras."""
MAX_KEPT_FRAMES = 128
"""Prepared frames that are kept for the last, shorter window; of more, every second one."""


@dataclass(frozen=True)
class Window:
    """Window of a stream, sampled and prepared."""

    start: float
    """Seconds on the stream's clock."""
    end: float
    """Seconds; the last window of a stream may be shorter than the others."""
    prepared: tuple[NDArray[np.uint8], ...] = field(repr=False)
    """T prepared frames, uint8 RGB (size, size, 3); neighbouring windows share them."""
    sampled: tuple[int, ...]
    """The number of each prepared frame in the stream, from 0."""
    numbers: range
    """Numbers of the stream's frames in the window."""
    arrived: float
    """Time at which the frame that completed it was pushed, by `time.perf_counter`."""
    gap: Gap | None = None
    """Gap between this window and the one before."""

    @property
    def frames(self) -> NDArray[np.uint8]:
        """Stack the prepared frames, uint8 RGB (T, size, size, 3)."""
        return np.stack(self.prepared)


class _Pending(NamedTuple):
    """The newest frame, which is on show until the next one's time."""

    number: int
    time: float
    prepare: Callable[[], Prepared]


class _Kept(NamedTuple):
    """Prepared frame."""

    number: int
    pixels: Prepared


@dataclass
class _Open:
    """Window that still lacks frames; its start counts from the first frame's time."""

    start: float
    first: int
    slots: list[_Kept] = field(default_factory=list)


class StreamWindow:
    """Cutter of a stream into windows of `window` seconds, one every `hop` seconds, of T frames uniform in time.

    Window k begins at k · hop after the first frame. Its frame i is the last one at or before the time
    (i + 1/2) · window / T after its start, which is known when the next frame comes; at a constant frame rate that is
    the sampling of `uniform_indices`. A frame is prepared if a window needs it, once for all windows that share it.

    A pause longer than a window, or a clock set back by more than one, is a gap: windows begin anew behind it.

    The last, shorter window is sampled from all its frames by `uniform_indices`, as a video of its own. For it the
    frames since the start of the oldest incomplete window are kept, at most `MAX_KEPT_FRAMES`. Windows that are still
    incomplete share their frames, so that a stream never holds more than (window / hop + 1) · T frames beside those.

    Args:
        window: Seconds, at least `MIN_WINDOW`.
        hop: Seconds from the start of one window to the start of the next, at least window / T.
        num_frames: T.
        transform: Preprocessing profile.
        fps: Frames a second, if known; the duration of the very first frame.
        ends_after: Seconds after the first frame before which the stream does not end, math.inf for a live one: frames
            only for the last window are not prepared so much earlier.

    Raises:
        ValueError: `window` or `hop` is out of its range.
    """

    def __init__(
        self,
        window: float,
        hop: float,
        *,
        num_frames: int,
        transform: FrameTransform,
        fps: float | None = None,
        ends_after: float = 0.0,
    ) -> None:
        if not MIN_WINDOW <= window < math.inf:
            message = f"the window is {window} s: it must be at least {MIN_WINDOW} s"
            raise ValueError(message)
        if not window / num_frames <= hop < math.inf:
            message = (
                f"the hop is {hop} s: it must be at least the window divided by {num_frames}, {window / num_frames} s"
            )
            raise ValueError(message)
        self.hop = hop
        self._window = window
        self._num_frames = num_frames
        self._transform = transform
        self._interval = min(1 / fps, window) if fps else 0.0
        self._kept_from = ends_after - window
        self._step = window / num_frames
        self._rounding = min(_ROUNDING, self._step / 4)
        self._moments = [(i + 0.5) * self._step + self._rounding for i in range(num_frames)]
        self._count = 0
        self._pending: _Pending | None = None
        self._origin = 0.0
        self._opened = 0
        self._open: list[_Open] = []
        self._kept: list[_Kept] = []
        self._stride = 1
        self._done_until = 0.0
        self._gap: Gap | None = None

    def push(self, frame: NDArray[np.uint8], t: float) -> list[Window]:
        """Add a frame; return the windows that it completes, usually none.

        Args:
            frame: uint8 RGB (H, W, 3); it is copied.
            t: Presentation time, seconds on any clock; frames that come late or twice are ignored.

        Raises:
            FramesError: The frame has another dtype or shape.
            ValueError: The time is not finite.
        """
        pixels = prepare_frames([frame], self._transform)[0]
        return self.advance(t, lambda: pixels)

    def advance(self, t: float, prepare: Callable[[], NDArray[np.uint8]]) -> list[Window]:
        """Add a frame as `push` does, but decode and prepare it only if a window needs it, at the latest in `flush`."""
        if not math.isfinite(t):
            message = f"the frame's time is {t} s: give a finite number of seconds"
            raise ValueError(message)
        done: list[Window] = []
        if self._pending is not None:
            step = t - self._pending.time
            if -self._window <= step <= 0:
                return []
            if abs(step) > self._window:
                done = self.restart(t)
            else:
                self._interval = step
                done = self._show(t - self._origin)
        if self._pending is None:
            self._origin = t
        self._pending = _Pending(self._count, t, prepare)
        self._count += 1
        return done

    def restart(self, t: float) -> list[Window]:
        """Begin anew with the frame at `t`, after a gap; return the windows that are complete without it."""
        if self._pending is None:
            return []
        last = self._pending.time
        done = self._show(last - self._origin + self._interval)
        self._gap = Gap(last if self._gap is None else self._gap.start, t)
        self._begin_anew()
        return done

    def flush(self) -> list[Window]:
        """End the stream; return the windows complete by now, and the frames that none has covered as a shorter one."""
        if self._pending is None:
            return []
        last = self._pending.time - self._origin
        end = last + self._interval
        # A stream of one frame may have no length at all.
        done = self._show(max(end, last + 2 * self._rounding))
        if self._open and not (self._done_until > 0 and end - self._done_until <= self._step / 2):
            done.append(self._rest(self._open[0], end))
        self._begin_anew()
        return done

    def _begin_anew(self) -> None:
        self._pending = None
        self._open.clear()
        self._kept.clear()
        self._opened, self._stride, self._done_until = 0, 1, 0.0

    def _show(self, until: float) -> list[Window]:
        """Show the newest frame up to a time after the first frame's, at most a window after its own.

        Hence at most T + 1 windows open, whatever the times are.
        """
        frame = self._pending
        if frame is None:
            return []
        while (start := self._opened * self.hop) + self._rounding < until:
            self._open.append(_Open(start, frame.number))
            self._opened += 1
        wanted = [bisect_left(self._moments, until - window.start) - len(window.slots) for window in self._open]
        if any(wanted) or self._is_kept(frame):
            kept = _Kept(frame.number, frame.prepare())
            self._kept.append(kept)
            for window, slots in zip(self._open, wanted, strict=True):
                window.slots += [kept] * slots
        return self._take_complete()

    def _is_kept(self, frame: _Pending) -> bool:
        if not self._open:
            return False
        late = frame.time - self._origin >= self._kept_from
        return not self._kept or (late and frame.number % self._stride == 0)

    def _take_complete(self) -> list[Window]:
        complete = [window for window in self._open if len(window.slots) == self._num_frames]
        del self._open[: len(complete)]
        first = self._open[0].first if self._open else self._count
        del self._kept[: bisect_left(self._kept, first, key=lambda kept: kept.number)]
        if len(self._kept) > MAX_KEPT_FRAMES:
            self._stride *= 2
            self._kept = self._kept[::2]
        elif len(self._kept) <= MAX_KEPT_FRAMES // 4:
            self._stride = max(1, self._stride // 2)
        return [self._finish(w, w.start + self._window, w.slots, w.slots[-1].number + 1) for w in complete]

    def _rest(self, window: _Open, end: float) -> Window:
        """Sample the last window from its frames; the nearest before stands for one that was not kept."""
        numbers = [kept.number for kept in self._kept]
        wanted = window.first + uniform_indices(self._count - window.first, self._num_frames)
        slots = [self._kept[max(bisect_right(numbers, number) - 1, 0)] for number in wanted]
        return self._finish(window, end, slots, self._count)

    def _finish(self, window: _Open, end: float, slots: list[_Kept], stop: int) -> Window:
        gap, self._gap = self._gap, None
        self._done_until = end
        return Window(
            start=self._origin + window.start,
            end=self._origin + end,
            prepared=tuple(slot.pixels for slot in slots),
            sampled=tuple(slot.number for slot in slots),
            numbers=range(window.first, stop),
            arrived=time.perf_counter(),
            gap=gap,
        )
