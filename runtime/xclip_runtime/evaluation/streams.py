"""Exact and cached windows of the same streams, side by side: agreement, drift and speed."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xclip_runtime.evaluation.intervals import Share, wilson
from xclip_runtime.results import JsonResult
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import earliest_end, open_source

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip
    from xclip_runtime.results import Encoding

    Floats = NDArray[np.float32]


class ComparedWindow(NamedTuple):
    """Window that was computed exactly and from cached frames."""

    start: float
    """Seconds."""
    end: float
    exact: Floats
    """Logits, (N,)."""
    cached: Floats
    """Logits from cached frames, (N,)."""
    encoding: Encoding
    exact_ms: float
    """Milliseconds from the frames to the logits."""
    cached_ms: float


@dataclass(frozen=True)
class StreamComparison(JsonResult):
    """Exact against cached over the windows of one or several streams."""

    windows: int
    """Windows that were compared; the first of a stream is exact in both."""
    agreement: Share
    """Windows with the same best label."""
    new_frames: float
    """Mean number of frames that were computed for a window, of all windows."""
    abs_logit_p50: float
    abs_logit_p99: float
    abs_logit_max: float
    """Quantiles of |Δlogit| over windows and labels."""
    logit_std: float
    """Standard deviation of the exact logits, to read the differences by."""
    exact_ms: float
    """Median milliseconds of an exact window."""
    cached_ms: float
    """Mean milliseconds of a window, refreshes included."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document; NaN, of no window, becomes null."""
        values = asdict(self)
        return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in values.items()}


def compare_windows(
    model: XClip, source: str | os.PathLike[str], *, window: float, hop: float | None, reuse: Reuse
) -> Iterator[ComparedWindow]:
    """Classify each window of a file both ways.

    Raises:
        BundleError: The bundle was exported without ``--stream``.
        VideoError: The file cannot be read.
        ValueError: ``window`` or ``hop`` is out of its range.
    """
    encoder = model.window_encoder(reuse)
    opened = open_source(source)
    windows = model.windows(window, hop, fps=opened.fps, ends_after=earliest_end(opened), reuse=reuse)
    for taken in WindowFeed(opened, windows, model.transform, newest_wins=False):
        start = time.perf_counter()
        exact = model.logits(taken.window.frames)
        middle = time.perf_counter()
        features, encoding = encoder.encode(taken.window)
        cached = model.label_logits(features)
        end = time.perf_counter()
        times = 1000 * (middle - start), 1000 * (end - middle)
        yield ComparedWindow(taken.window.start, taken.window.end, exact, cached, encoding, *times)


def summarise(windows: Sequence[ComparedWindow]) -> StreamComparison:
    """Summarise at least one window."""
    exact, cached = (np.stack([getattr(w, side) for w in windows]) for side in ("exact", "cached"))
    error = np.abs(exact - cached)
    return StreamComparison(
        windows=len(windows),
        agreement=wilson(int((exact.argmax(1) == cached.argmax(1)).sum()), len(windows)),
        new_frames=float(np.mean([w.encoding.new_frames for w in windows])),
        abs_logit_p50=float(np.median(error)),
        abs_logit_p99=float(np.quantile(error, 0.99)),
        abs_logit_max=float(error.max()),
        logit_std=float(exact.std()),
        exact_ms=float(np.median([w.exact_ms for w in windows])),
        cached_ms=float(np.mean([w.cached_ms for w in windows])),
    )
