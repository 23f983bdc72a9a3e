"""Exact and cached windows of the same streams, side by side: agreement, accuracy, drift and speed."""

from __future__ import annotations

import math
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xclip_runtime.evaluation.intervals import Share, mcnemar, wilson
from xclip_runtime.results import JsonResult
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import earliest_end, open_source

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.evaluation.datasets import Sample
    from xclip_runtime.inference.cached_frames import Reuse, WindowEncoder
    from xclip_runtime.model import XClip
    from xclip_runtime.results import Encoding
    from xclip_runtime.streaming.windows import Window

    Floats = NDArray[np.float32]

_ROUNDING = 1e-6


class ComparedWindow(NamedTuple):
    """Window that was computed exactly and from cached frames."""

    start: float
    """Seconds from the first frame."""
    end: float
    exact: Floats
    """Logits, (N,)."""
    cached: Floats
    """Logits from cached frames, (N,)."""
    encoding: Encoding
    exact_ms: float
    """Milliseconds from the frames to the logits."""
    cached_ms: float


class ComparedStream(NamedTuple):
    """Windows of one stream, in order."""

    windows: Sequence[ComparedWindow]
    segments: Sequence[Sample] = ()
    """Labelled parts of the stream, in order; none if it has no labels."""


@dataclass(frozen=True)
class Quantiles:
    """Quantiles of a difference."""

    p50: float
    p99: float
    max: float


@dataclass(frozen=True)
class Detection:
    """Seconds from the start of a labelled part to the end of the first window whose best label is that label."""

    changes: int
    """Labelled parts, except those at the start of a stream."""
    detected: int
    """Those with such a window that ends within the part."""
    mean: float | None
    """None if none was detected."""
    median: float | None


@dataclass(frozen=True)
class Accuracy:
    """Exact against cached where the truth is known. A window's label is that of its middle."""

    agreement_inside: Share
    """Windows inside one labelled part with the same best label."""
    accuracy_exact: Share
    accuracy_cached: Share
    mcnemar_p: float
    """P-value of McNemar's exact test for both being right equally often; overlapping windows make it too small."""
    detection_s_exact: Detection
    detection_s_cached: Detection


@dataclass(frozen=True)
class StreamComparison(JsonResult):
    """Exact against cached over the windows of one or several streams."""

    windows: int
    """Windows that were compared; the first of a stream is exact in both."""
    agreement: Share
    """Windows with the same best label."""
    new_frames: float
    """Mean number of frames that were computed for a window, of all windows."""
    abs_logit: Quantiles
    """|Δlogit| over windows and labels."""
    logit_std: float
    """Standard deviation of the exact logits, to read the differences by."""
    exact_ms: float
    """Median milliseconds of an exact window."""
    cached_ms: float
    """Mean milliseconds of a window, refreshes included."""
    labelled: Accuracy | None
    """Accuracy; None if no window has a label."""

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON document; NaN, of no window, becomes null."""
        return _without_nan(asdict(self))


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
    origin = None
    for taken in WindowFeed(opened, windows, model.transform, newest_wins=False):
        origin = taken.window.start if origin is None else origin
        yield compared(model, encoder, taken.window, *timed_logits(model, taken.window), origin=origin)


def timed_logits(model: XClip, window: Window) -> tuple[Floats, float]:
    """Compute the exact logits of a window, (N,); return them with the milliseconds that it took."""
    start = time.perf_counter()
    logits = model.logits(window.frames)
    return logits, 1000 * (time.perf_counter() - start)


def compared(
    model: XClip, encoder: WindowEncoder, window: Window, exact: Floats, exact_ms: float, *, origin: float = 0.0
) -> ComparedWindow:
    """Compute the next window of a stream from cached frames, too; ``origin`` is the time of the first frame."""
    start = time.perf_counter()
    features, encoding = encoder.encode(window)
    cached = model.label_logits(features)
    cached_ms = 1000 * (time.perf_counter() - start)
    return ComparedWindow(window.start - origin, window.end - origin, exact, cached, encoding, exact_ms, cached_ms)


def summarise(streams: Sequence[ComparedStream], labels: Sequence[str]) -> StreamComparison:
    """Summarise at least one window; ``labels`` are the names of the N labels, as the segments spell them."""
    windows = [window for stream in streams for window in stream.windows]
    exact, cached = (np.stack([getattr(w, side) for w in windows]) for side in ("exact", "cached"))
    error = np.abs(exact - cached)
    return StreamComparison(
        windows=len(windows),
        agreement=_share(exact.argmax(1) == cached.argmax(1)),
        new_frames=float(np.mean([w.encoding.new_frames for w in windows])),
        abs_logit=Quantiles(float(np.median(error)), float(np.quantile(error, 0.99)), float(error.max())),
        logit_std=float(exact.std()),
        exact_ms=float(np.median([w.exact_ms for w in windows])),
        cached_ms=float(np.mean([w.cached_ms for w in windows])),
        labelled=_accuracy(streams, labels),
    )


def _accuracy(streams: Sequence[ComparedStream], labels: Sequence[str]) -> Accuracy | None:
    places = {label: place for place, label in enumerate(labels)}
    found = []
    for window, segment in ((w, _segment_at(s.segments, (w.start + w.end) / 2)) for s in streams for w in s.windows):
        if segment is not None:
            inside = segment.start - _ROUNDING <= window.start and window.end <= segment.end + _ROUNDING
            found.append((inside, places[segment.label], window.exact.argmax(), window.cached.argmax()))
    if not found:
        return None
    within, truth, exact, cached = (np.array(column) for column in zip(*found, strict=True))
    first, second = exact == truth, cached == truth
    return Accuracy(
        agreement_inside=_share((exact == cached)[within]),
        accuracy_exact=_share(first),
        accuracy_cached=_share(second),
        mcnemar_p=mcnemar(int((first & ~second).sum()), int((second & ~first).sum())),
        detection_s_exact=_detection(streams, places, "exact"),
        detection_s_cached=_detection(streams, places, "cached"),
    )


def _segment_at(segments: Sequence[Sample], moment: float) -> Sample | None:
    return next((segment for segment in segments if segment.start <= moment < segment.end), None)


def _detection(streams: Sequence[ComparedStream], places: dict[str, int], side: str) -> Detection:
    changes, delays = 0, []
    for stream in streams:
        for segment in stream.segments:
            ends = (w.end for w in stream.windows if getattr(w, side).argmax() == places[segment.label])
            if stream.windows and stream.windows[0].start < segment.start < stream.windows[-1].end:
                changes += 1
                delays += [e - segment.start for e in ends if segment.start < e <= segment.end + _ROUNDING][:1]
    mean, median = (float(mean(delays)) if delays else None for mean in (np.mean, np.median))
    return Detection(changes, len(delays), mean, median)


def _share(values: NDArray[np.bool_]) -> Share:
    return wilson(int(values.sum()), len(values))


def _without_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {
        k: _without_nan(v) if isinstance(v, dict) else None if isinstance(v, float) and math.isnan(v) else v
        for k, v in values.items()
    }
