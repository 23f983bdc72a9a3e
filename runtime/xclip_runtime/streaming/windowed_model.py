"""Windows of streams: a loaded model that cuts, encodes and classifies them."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import VideoTypeError, XClipError
from xclip_runtime.inference.cached_frames import Reuse, encode_windows, hop_on_grid
from xclip_runtime.inference.loaded_model import LoadedModel
from xclip_runtime.inference.scoring import best_labels, check_top_k, softmax
from xclip_runtime.results import Encoding, WindowResult
from xclip_runtime.streaming.events import Smoother
from xclip_runtime.streaming.feed import WindowFeed, together
from xclip_runtime.streaming.sources import earliest_end, open_source
from xclip_runtime.streaming.windows import StreamWindow
from xclip_runtime.util.arguments import check_numbers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.inference.cached_frames import WindowEncoder
    from xclip_runtime.streaming.feed import Taken
    from xclip_runtime.streaming.sources import FrameSource

    Source = str | int | os.PathLike[str] | FrameSource

_OPENED_AT_ONCE = 16


@dataclass(frozen=True)
class _Stream:
    """One of several streams of a model."""

    number: int
    feed: WindowFeed
    encoder: WindowEncoder | None
    smoother: Smoother


class WindowedModel(LoadedModel):
    """A loaded model, for streams; the arguments are those of `XClip`."""

    def windows(
        self,
        window: float = 4.0,
        hop: float | None = None,
        *,
        fps: float | None = None,
        ends_after: float = 0.0,
        reuse: Reuse | bool = False,
    ) -> StreamWindow:
        """Create windows of this model's size to push frames into; ``logits(window.frames)`` scores them.

        Args:
            window: Seconds.
            hop: Seconds from one window to the next; None takes half a window, with ``reuse`` an eighth.
            fps: Frames per second, if known.
            ends_after: Seconds before which the stream does not end, see `StreamWindow`.
            reuse: Take the nearest hop with which windows share their frames, for `window_encoder`.

        Raises:
            ValueError: ``window`` or ``hop`` is out of its range.
        """
        check_numbers(window=window, hop=hop)
        frames = self.bundle.num_frames
        if reuse:
            hop = hop_on_grid(window, window / 8 if hop is None else hop, frames)
        hop = window / 2 if hop is None else hop
        return StreamWindow(window, hop, num_frames=frames, transform=self.transform, fps=fps, ends_after=ends_after)

    def stream(
        self,
        source: Source,
        *,
        window: float = 4.0,
        hop: float | None = None,
        top_k: int | None = 5,
        smooth: float = 0.0,
        newest_wins: bool | None = None,
        reuse: Reuse | bool = False,
    ) -> Iterator[WindowResult]:
        """Classify a live or long video, window by window.

        Frames are read in a thread of their own. A window of a live source that still waits for the model when the next
        one is complete is dropped and counted; other sources wait for the model.

        Args:
            source: Number of a camera, an address such as rtsp://…, a file, "-" for standard input, or a source that
                `xclip_runtime.streaming.sources.open_source` opened.
            window: Duration of a window, seconds.
            hop: Seconds from one window to the next; None takes half a window, with ``reuse`` an eighth.
            top_k: Number of labels to return, best first; None returns all.
            smooth: Time constant of exponential smoothing of the probabilities, seconds; 0 for none.
            newest_wins: Drop windows that wait; None does so for live sources.
            reuse: Compute the new frames of a window only, an approximation (see docs/streaming.md); the hop becomes
                the nearest multiple of window / T. A `Reuse` sets when windows are computed exactly.

        Raises:
            BundleError: ``reuse`` needs a bundle that was exported with ``--stream``.
            VideoError: The source cannot be opened, contains no frames, or, while iterating, is lost for too long.
            ValueError: An option is out of its range.
        """
        opened: FrameSource = source if hasattr(source, "live") else open_source(source)  # type: ignore[assignment]
        results = self.streams(
            [opened], window=window, hop=hop, top_k=top_k, smooth=smooth, newest_wins=newest_wins, reuse=reuse
        )
        return (_raised(result) for _, result in results)

    def streams(
        self,
        sources: Sequence[Source],
        *,
        opener: Callable[[Any], FrameSource] = open_source,
        window: float = 4.0,
        hop: float | None = None,
        top_k: int | None = 5,
        smooth: float = 0.0,
        newest_wins: bool | None = None,
        reuse: Reuse | bool = False,
    ) -> Iterator[tuple[int, WindowResult | XClipError]]:
        """Classify several live or long videos at once, each window by window, with the arguments of `stream`.

        Sources that are not open yet are opened by ``opener``, all at the same time.
        Windows that wait at the same time are computed together: with ``reuse`` their new frames in one run, otherwise
        ``batch_size`` of them.

        Returns:
            The number of a source, from 0, with its next window, in the order in which they are computed. A source that
            fails gives its error in place of its next window, and the others go on.

        Raises:
            BundleError: ``reuse`` needs a bundle that was exported with ``--stream``.
            VideoTypeError: ``sources`` is a single one.
            ValueError: An option is out of its range.
        """
        if isinstance(sources, (str, os.PathLike)):
            message = f"{sources} is one source: put it into a list, or call stream"
            raise VideoTypeError(message)
        check_top_k(top_k)
        smoothers = [Smoother(smooth) for _ in sources]
        encoders = [
            self.window_encoder(reuse if isinstance(reuse, Reuse) else None) if reuse else None for _ in sources
        ]
        self.windows(window, hop, reuse=reuse)
        with ThreadPoolExecutor(_OPENED_AT_ONCE) as pool:
            opened = list(pool.map(partial(_open, opener), sources))
        changed, streams = threading.Condition(), []
        for number, (source, encoder, smoother) in enumerate(zip(opened, encoders, smoothers, strict=True)):
            if not isinstance(source, XClipError):
                windows = self.windows(window, hop, fps=source.fps, ends_after=earliest_end(source), reuse=reuse)
                newest = source.live if newest_wins is None else newest_wins
                feed = WindowFeed(source, windows, self.transform, newest_wins=newest, changed=changed)
                streams.append(_Stream(number, feed, encoder, smoother))
        failed = [(number, error) for number, error in enumerate(opened) if isinstance(error, XClipError)]
        return chain(failed, self._results(streams, changed, top_k))

    def _results(
        self, streams: Sequence[_Stream], changed: threading.Condition, top_k: int | None
    ) -> Iterator[tuple[int, WindowResult | XClipError]]:
        for found in together([stream.feed for stream in streams], changed):
            waiting = []
            for number, item in found:
                if isinstance(item, XClipError):
                    yield streams[number].number, item
                elif isinstance(item, BaseException):
                    raise item
                else:
                    waiting.append((streams[number], item))
            for (stream, taken), (logits, encoding) in zip(waiting, self._logits(waiting), strict=True):
                result = window_result(
                    self, self.labels, taken, logits, stream.smoother, top_k=top_k, encoding=encoding
                )
                yield stream.number, result

    def _logits(
        self, waiting: Sequence[tuple[_Stream, Taken]]
    ) -> Iterator[tuple[NDArray[np.float32], Encoding | None]]:
        cached = [(stream.encoder, taken.window) for stream, taken in waiting if stream.encoder is not None]
        for features, encoding in encode_windows(cached):
            yield self.label_logits(features), encoding
        exact = waiting if not cached else ()
        for start in range(0, len(exact), self._batch_size):
            part = exact[start : start + self._batch_size]
            for logits in self.logits_batch(np.stack([taken.window.frames for _, taken in part])):
                yield logits, None


def _open(opener: Callable[[Any], FrameSource], source: Source) -> FrameSource | XClipError:
    try:
        return source if hasattr(source, "live") else opener(source)  # type: ignore[return-value]
    except XClipError as error:
        return error


def _raised(result: WindowResult | XClipError) -> WindowResult:
    if isinstance(result, XClipError):
        raise result
    return result


def window_result(
    model: WindowedModel,
    labels: Sequence[str],
    taken: Taken,
    logits: NDArray[np.float32],
    smoother: Smoother,
    *,
    top_k: int | None,
    encoding: Encoding | None = None,
) -> WindowResult:
    """Smooth the probabilities of a window of a stream, whose logits are float32 (N,), and make its result."""
    window = taken.window
    probs = smoother.update(softmax(logits), window.end, anew=window.gap is not None)
    best, latency_ms = best_labels(labels, probs, logits, top_k), 1000 * (time.perf_counter() - window.arrived)
    lost = taken.dropped_windows, taken.dropped_frames, window.gap
    ran: dict[str, Any] = {**model.ran, "encoding": encoding or Encoding.all_new(model.bundle.num_frames)}
    return WindowResult(window.start, window.end, best, latency_ms, *lost, **ran)
