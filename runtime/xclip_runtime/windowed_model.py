"""Windows of streams: a loaded model that cuts, encodes and classifies them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from xclip_runtime.inference.cached_frames import Reuse, hop_on_grid
from xclip_runtime.inference.loaded_model import LoadedModel
from xclip_runtime.inference.scoring import best_labels, check_top_k, softmax
from xclip_runtime.results import Encoding, WindowResult
from xclip_runtime.streaming.events import Smoother
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import earliest_end, open_source
from xclip_runtime.streaming.windows import StreamWindow

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xclip_runtime.inference.cached_frames import WindowEncoder
    from xclip_runtime.streaming.feed import Taken
    from xclip_runtime.streaming.sources import FrameSource


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
        frames = self.bundle.num_frames
        if reuse:
            hop = hop_on_grid(window, window / 8 if hop is None else hop, frames)
        hop = window / 2 if hop is None else hop
        return StreamWindow(window, hop, num_frames=frames, transform=self.transform, fps=fps, ends_after=ends_after)

    def stream(
        self,
        source: str | int | os.PathLike[str] | FrameSource,
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
        check_top_k(top_k)
        smoother = Smoother(smooth)
        opened: FrameSource = source if hasattr(source, "live") else open_source(source)  # type: ignore[assignment]
        encoder = self.window_encoder(reuse if isinstance(reuse, Reuse) else None) if reuse else None
        windows = self.windows(window, hop, fps=opened.fps, ends_after=earliest_end(opened), reuse=reuse)
        newest_wins = opened.live if newest_wins is None else newest_wins
        feed = WindowFeed(opened, windows, self.transform, newest_wins=newest_wins)
        return (self._stream_result(taken, encoder, smoother, top_k) for taken in feed)

    def _stream_result(
        self, taken: Taken, encoder: WindowEncoder | None, smoother: Smoother, top_k: int | None
    ) -> WindowResult:
        if encoder is None:
            logits, encoding = self.logits(taken.window.frames), None
        else:
            features, encoding = encoder.encode(taken.window)
            logits = self.label_logits(features)
        return window_result(self, self.labels, taken, logits, smoother, top_k=top_k, encoding=encoding)


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
