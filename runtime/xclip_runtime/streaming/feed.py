"""Windows of a source, cut in a thread while the model runs."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        changed: Condition that is shared with other feeds, for `together`.
    """

    def __init__(
        self,
        source: FrameSource,
        windows: StreamWindow,
        transform: FrameTransform,
        *,
        newest_wins: bool,
        changed: threading.Condition | None = None,
    ) -> None:
        self._source = source
        self._windows = windows
        self._transform = transform
        self._newest_wins = newest_wins
        self._changed = changed or threading.Condition()
        self._waiting: Window | None = None
        self._passed_over: list[range] = []
        self._taken_until = 0
        self._ended = self._stopped = False
        self.error: BaseException | None = None
        """Error that ended the source."""
        # A daemon, since a camera may block it in native code for ever.
        self._thread = threading.Thread(target=self._run, name="xclip-stream", daemon=True)

    def __iter__(self) -> Iterator[Taken]:
        """Yield windows until the source ends, then raise its error if it has one. Iterate only once."""
        self.start()
        try:
            while (taken := self.take()) is not None:
                yield taken
        finally:
            self.end()
            self.join(1)
        if self.error is not None:
            raise self.error

    def start(self) -> None:
        """Start to read the source."""
        self._thread.start()

    @property
    def is_ready(self) -> bool:
        """True if `take` does not wait."""
        return self._waiting is not None or self._ended

    def take(self) -> Taken | None:
        """Wait for the next window and take it; None at the end of the source."""
        with self._changed:
            self._changed.wait_for(lambda: self.is_ready)
            window, self._waiting = self._waiting, None
            passed_over, self._passed_over = self._passed_over, []
            self._changed.notify_all()
        if window is None:
            return None
        return Taken(window, len(passed_over), self._count_dropped(passed_over, window))

    def end(self) -> None:
        """End the source at its next step."""
        self._source.close()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def join(self, timeout: float) -> None:
        """Wait for the end of the thread, at most so many seconds."""
        self._thread.join(timeout)

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
            self.error = error
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


def together(
    feeds: Sequence[WindowFeed], changed: threading.Condition
) -> Iterator[list[tuple[int, Taken | BaseException]]]:
    """Yield the windows that wait at the same time, at most one of each feed, with the number of the feed.

    An error of a feed stands in place of its last window. The feeds share the condition ``changed``.
    """
    running = dict(enumerate(feeds))
    for feed in feeds:
        feed.start()
    try:
        while running:
            with changed:
                changed.wait_for(lambda: any(feed.is_ready for feed in running.values()))
                ready = [number for number, feed in running.items() if feed.is_ready]
            found: list[tuple[int, Taken | BaseException]] = []
            for number in ready:
                feed = running[number]
                item = feed.take()
                if item is None:
                    del running[number]
                if (outcome := item or feed.error) is not None:
                    found.append((number, outcome))
            if found:
                yield found
    finally:
        for feed in feeds:
            feed.end()
        for feed in feeds:
            feed.join(1 / len(feeds))
