"""Windows of a source, cut in a thread while the model runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.streaming.sources import FrameSource, StreamFrame
    from xclip_runtime.streaming.windows import StreamWindow, Window
    from xclip_runtime.video.transforms import FrameTransform


class Taken(NamedTuple):
    """Window, with the losses since the one before."""

    window: Window
    dropped_windows: int
    dropped_frames: int
    """Frames of dropped windows that are in no window taken."""


class WindowFeed:
    """Iterable over the windows of a source.

    At most one window waits. When the next is ready, it replaces the waiting one (`newest_wins`), or the source waits.

    Args:
        source: Source of frames; closed with the feed.
        windows: Cuts the frames into windows.
        transform: Preprocessing profile.
        newest_wins: Drop windows instead of letting the source wait; a live source would lose frames.
    """

    def __init__(
        self, source: FrameSource, windows: StreamWindow, transform: FrameTransform, *, newest_wins: bool
    ) -> None:
        self._source = source
        self._windows = windows
        self._transform = transform
        self._newest_wins = newest_wins
        self._changed = threading.Condition()
        self._waiting: Window | None = None
        self._passed_over: list[range] = []
        self._taken_until = 0
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        # A daemon, since a camera may block it in native code for ever.
        self._thread = threading.Thread(target=self._run, name="xclip-stream", daemon=True)

    def __iter__(self) -> Iterator[Taken]:
        """Yield windows until the source ends, then raise its error if it has one. Iterate only once."""
        self._thread.start()
        try:
            while (taken := self._take()) is not None:
                yield taken
        finally:
            self._stop()
        if self._error is not None:
            raise self._error

    def _take(self) -> Taken | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting is not None or self._ended)
            window, self._waiting = self._waiting, None
            passed_over, self._passed_over = self._passed_over, []
            self._changed.notify_all()
        if window is None:
            return None
        return Taken(window, len(passed_over), self._count_dropped(passed_over, window))

    def _stop(self) -> None:
        self._source.close()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
        self._thread.join(timeout=1)

    def _count_dropped(self, passed_over: list[range], window: Window) -> int:
        frames = 0
        for numbers in passed_over:
            frames += len(range(max(numbers.start, self._taken_until), min(numbers.stop, window.numbers.start)))
            self._taken_until = max(self._taken_until, numbers.stop)
        self._taken_until = window.numbers.stop
        return frames

    def _run(self) -> None:
        try:
            for frame in self._source:
                self._advance(frame)
                if self._stopped:
                    return
            for window in self._windows.flush():
                self._offer(window)
        except BaseException as error:  # noqa: BLE001 - raised in the consumer's thread
            self._error = error
        finally:
            with self._changed:
                self._ended = True
                self._changed.notify_all()

    def _advance(self, frame: StreamFrame) -> None:
        for window in self._windows.restart(frame.time) if frame.after_gap else ():
            self._offer(window)
        for window in self._windows.advance(frame.time, lambda: self._transform(frame.to_rgb())):
            self._offer(window)

    def _offer(self, window: Window) -> None:
        with self._changed:
            if not self._newest_wins:
                self._changed.wait_for(lambda: self._waiting is None or self._stopped)
            elif self._waiting is not None:
                self._passed_over.append(self._waiting.numbers)
                window = replace(window, gap=window.gap or self._waiting.gap)
            self._waiting = window
            self._changed.notify_all()
