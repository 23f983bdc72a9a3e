"""Windows of a stream at the cost of their new frames.

In X-CLIP frames see each other through one message token a layer only. A cached frame keeps the class tokens that it
had when it was new, for the message attention of later frames, with its embedding and its share of the patch features:
a window is then its new frames and a small head. Where all frames are new that is exact.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from xclip_runtime.results import Encoding, VideoFeatures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.inference.session import Session

    Floats = NDArray[np.float32]

logger = logging.getLogger(__name__)

# Detection of scene cuts: stride of the pixels in each direction, and bins of a channel's histogram.
_CUT_STRIDE, _CUT_BINS = 8, 16


@dataclass(frozen=True)
class Reuse:
    """Policy of a stream whose windows share what their frames computed."""

    refresh: int = 64
    """Interval of exact windows, in windows, from which the cache starts anew; 0 for none."""
    max_drift: float = 1.0
    """Largest difference of a logit, cached to exact; above it, the next window is exact, too."""
    cut: float = 0.15
    """`difference` of two neighbouring frames that is a scene cut: the window is exact."""

    def __post_init__(self) -> None:
        if self.refresh < 0 or not self.max_drift >= 0 or not self.cut >= 0:
            message = f"refresh, max_drift and cut are {self.refresh}, {self.max_drift} and {self.cut}: give 0 or more"
            raise ValueError(message)


class SampledWindow(Protocol):
    """Part of `xclip_runtime.streaming.windows.Window` that is read here."""

    @property
    def sampled(self) -> tuple[int, ...]:
        """Numbers of the frames."""

    @property
    def prepared(self) -> tuple[NDArray[np.uint8], ...]:
        """The frames, uint8 RGB (size, size, 3)."""

    @property
    def gap(self) -> object | None:
        """Gap before the window."""


class FrameCache:
    """Results of T frames of one stream, in rows that are written over in turn.

    Args:
        shapes: Shape of a frame's part of each tensor; class tokens have the layers before the frames.
        frames: T.
    """

    def __init__(self, shapes: tuple[tuple[int, int], int, tuple[int, int]], frames: int) -> None:
        (layers, dim), embed, features = shapes
        self.numbers: list[int | None] = [None] * frames
        self.class_tokens: Floats = np.zeros((layers, frames, dim), np.float32)
        self.frame_embeds: Floats = np.zeros((frames, embed), np.float32)
        self.patch_features: Floats = np.zeros((frames, *features), np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes of the tensors."""
        return self.class_tokens.nbytes + self.frame_embeds.nbytes + self.patch_features.nbytes

    def clear(self) -> None:
        """Forget all frames."""
        self.numbers = [None] * len(self.numbers)

    def place(self, numbers: Sequence[int]) -> tuple[list[int], list[int]]:
        """Give each frame of a window a row.

        Returns:
            The row of each frame, and the positions in the window of those that are new.
        """
        free: dict[int | None, list[int]] = {}
        for row, number in enumerate(self.numbers):
            free.setdefault(number, []).append(row)
        rows = [free[number].pop() if free.get(number) else None for number in numbers]
        new = [position for position, row in enumerate(rows) if row is None]
        left = (row for rows_of in free.values() for row in rows_of)
        placed = [next(left) if row is None else row for row in rows]
        for row, number in zip(placed, numbers, strict=True):
            self.numbers[row] = number
        return placed, new


class CachedPart(NamedTuple):
    """Window of one stream."""

    cache: FrameCache
    numbers: Sequence[int]
    """Numbers of its T frames; the cache knows those of equal number."""
    frames: Sequence[NDArray[np.uint8]]
    """The frames, uint8 RGB (size, size, 3)."""


class _Run(NamedTuple):
    """New frames of one stream, and the rows of its cache for them."""

    cache: FrameCache
    rows: list[int]
    new: list[NDArray[np.uint8]]


class CachedTower:
    """The stream graph and the head graph of a model. Any thread may use it, each `FrameCache` one at a time.

    Args:
        stream: Session of the stream graph.
        head: Session of the head graph.
        frames: T.
    """

    def __init__(self, stream: Session, head: Session, frames: int) -> None:
        self._stream, self._head, self.frames = stream, head, frames
        shapes = {tensor.name: tensor.shape for tensor in stream.outputs}
        layers, _, dim = shapes["class_tokens"]
        _, patches, embed = shapes["patch_features"]
        self._shapes = (int(layers), int(dim)), int(embed), (int(patches), int(embed))

    def cache(self) -> FrameCache:
        """Make an empty cache for one stream."""
        return FrameCache(self._shapes, self.frames)

    def encode(self, parts: Sequence[CachedPart]) -> list[tuple[VideoFeatures, int]]:
        """Compute the features of windows of different streams.

        Their new frames run together, at most T at once.

        Returns:
            The features of each, and how many of its frames were new.
        """
        placed = [part.cache.place(part.numbers) for part in parts]
        runs = [
            _Run(part.cache, [rows[i] for i in new], [part.frames[i] for i in new])
            for part, (rows, new) in zip(parts, placed, strict=True)
            if new
        ]
        try:
            for together in self._grouped(runs):
                self._compute(together)
        except BaseException:
            for part in parts:
                part.cache.clear()
            raise
        return [(self._features(part.cache, rows), len(new)) for part, (rows, new) in zip(parts, placed, strict=True)]

    def _grouped(self, runs: Sequence[_Run]) -> Iterator[list[_Run]]:
        group: list[_Run] = []
        for run in runs:
            if group and sum(len(other.new) for other in group) + len(run.new) > self.frames:
                yield group
                group = []
            group.append(run)
        if group:
            yield group

    def _compute(self, runs: Sequence[_Run]) -> None:
        kept = [np.delete(run.cache.class_tokens, run.rows, axis=1) for run in runs]
        found = self._stream.run(stream_feeds([np.stack(run.new) for run in runs], kept))
        start = 0
        for run in runs:
            part = slice(start, start := start + len(run.rows))
            run.cache.class_tokens[:, run.rows] = found["class_tokens"][:, part]
            run.cache.frame_embeds[run.rows] = found["frame_embeds"][part]
            run.cache.patch_features[run.rows] = found["patch_features"][part]

    def _features(self, cache: FrameCache, rows: Sequence[int]) -> VideoFeatures:
        inputs = {"frame_embeds": cache.frame_embeds[rows][None], "patch_features": cache.patch_features[None]}
        outputs = self._head.run(inputs)
        return VideoFeatures(outputs["video_embeds"][0], outputs["img_features"][0])


def stream_feeds(new: Sequence[NDArray[np.uint8]], cached: Sequence[Floats]) -> dict[str, NDArray[Any]]:
    """Make the inputs of the stream graph.

    Args:
        new: New frames of each stream, uint8 RGB (K, size, size, 3).
        cached: Class tokens of the cached frames of each stream, (layers, T - K, d).
    """
    counts, kept = [len(frames) for frames in new], [tokens.shape[1] for tokens in cached]
    ends, kept_ends, longest = np.cumsum(counts), np.cumsum(kept), max(counts)
    own = [np.arange(end - count, end) for end, count in zip(ends, counts, strict=True)]
    old = [np.arange(end - count, end) for end, count in zip(kept_ends, kept, strict=True)]
    return {
        "pixel_values": np.concatenate(new),
        "cached_tokens": np.concatenate(cached, axis=1),
        "query_rows": np.stack([np.pad(rows, (0, longest - len(rows)), mode="edge") for rows in own]),
        "key_rows": np.stack([np.concatenate([o, kept_ends[-1] + n]) for o, n in zip(old, own, strict=True)]),
        "answer_rows": np.concatenate([i * longest + np.arange(count) for i, count in enumerate(counts)]),
    }


class WindowEncoder:
    """Encoder of the windows of one stream, by the policy of `Reuse`. One thread at a time may use it.

    Args:
        tower: Graphs.
        logits: Logits, float32 (N,), of features, for the drift.
        reuse: Policy.
    """

    def __init__(self, tower: CachedTower, logits: Callable[[VideoFeatures], Floats], reuse: Reuse) -> None:
        self.tower = tower
        self._logits, self._reuse = logits, reuse
        self._cache = tower.cache()
        self._drift: float | None = None
        self._drifted = False
        self.since_exact = 0
        """Windows since the last exact one."""
        self.encoding = Encoding.all_new(tower.frames)
        """Encoding of the last window."""
        self.refreshed = False
        """True if the last window was computed both ways, which measured the drift."""

    @property
    def nbytes(self) -> int:
        """Bytes that are held for the stream."""
        return self._cache.nbytes

    def encode(self, window: SampledWindow) -> tuple[VideoFeatures, Encoding]:
        """Compute the features of the next window of the stream."""
        return encode_windows([(self, window)])[0]

    def begin(self, window: SampledWindow) -> CachedPart:
        """Begin the next window; the tower computes it."""
        self.refreshed = False
        if window.gap is not None or self._is_cut(window):
            self._cache.clear()
        return CachedPart(self._cache, window.sampled, window.prepared)

    def is_due(self, new: int) -> bool:
        """Return True if a window of that many new frames should be refreshed."""
        if not self._reuse.refresh or new == self.tower.frames:
            return False
        return self._drifted or self.since_exact + 1 >= self._reuse.refresh

    def refresh(self, window: SampledWindow, approximate: VideoFeatures) -> tuple[VideoFeatures, int]:
        """Compute a window exactly, too, which measures the drift."""
        self._cache.clear()
        features, new = self.tower.encode([CachedPart(self._cache, window.sampled, window.prepared)])[0]
        self._drift = float(np.abs(self._logits(features) - self._logits(approximate)).max())
        self.refreshed = True
        logger.info("drift of cached frames after %d windows: %.3g in a logit", self.since_exact, self._drift)
        return features, new

    def end(self, new: int) -> Encoding:
        """End a window of that many new frames."""
        exact = new == self.tower.frames
        if exact:
            self._drifted = self.refreshed and (self._drift or 0.0) > self._reuse.max_drift
        self.since_exact = 0 if exact else self.since_exact + 1
        self.encoding = Encoding(exact, new, self.tower.frames, self._drift)
        return self.encoding

    def _is_cut(self, window: SampledWindow) -> bool:
        """Compare each frame that the cache lacks with the one before it in the window."""
        known = set(self._cache.numbers)
        pairs = zip(window.sampled[1:], window.prepared, window.prepared[1:], strict=False)
        return any(
            number not in known and difference(before, frame) > self._reuse.cut for number, before, frame in pairs
        )


def encode_windows(windows: Sequence[tuple[WindowEncoder, SampledWindow]]) -> list[tuple[VideoFeatures, Encoding]]:
    """Compute the next windows of different streams of one model together.

    Of the windows that are due for a refresh only one is refreshed, that of the stream which has waited longest:
    streams that began together would otherwise all take the time of an exact window at once, again and again.

    Raises:
        ValueError: Two windows are of the same stream, or of different models.
    """
    if not windows:
        return []
    tower = windows[0][0].tower
    if len({id(encoder) for encoder, _ in windows}) < len(windows) or any(e.tower is not tower for e, _ in windows):
        message = "windows that are computed together must be of different streams of one model"
        raise ValueError(message)
    found = tower.encode([encoder.begin(window) for encoder, window in windows])
    due = [i for i, (encoder, _) in enumerate(windows) if encoder.is_due(found[i][1])]
    if due:
        longest = max(due, key=lambda i: windows[i][0].since_exact)
        encoder, window = windows[longest]
        found[longest] = encoder.refresh(window, found[longest][0])
    return [(features, encoder.end(new)) for (encoder, _), (features, new) in zip(windows, found, strict=True)]


def difference(before: NDArray[np.uint8], frame: NDArray[np.uint8]) -> float:
    """Compute how much two prepared frames differ as at a scene cut: from 0 to 1.

    Motion moves colours, and a cut exchanges them: the distance of the histograms tells them apart, from 0, the same
    colours, to 1, none in common. Light that flickers changes colours, but pixels by little: so much as three times
    their mean difference, of their range, counts at most.
    """
    if before is frame:
        return 0.0
    one, other = _pixels(before), _pixels(frame)
    exchanged = float(np.abs(_histogram(one) - _histogram(other)).sum()) / 2
    return min(exchanged, 3 * float(np.abs(one - other).mean()))


def _pixels(frame: NDArray[np.uint8]) -> Floats:
    pixels: Floats = frame[::_CUT_STRIDE, ::_CUT_STRIDE].reshape(-1, 3).astype(np.float32) / np.float32(255)
    return pixels


def _histogram(pixels: Floats) -> NDArray[np.float64]:
    """Count the share of pixels (P, 3) in each bin of each channel; a pixel is shared by the two nearest."""
    places = pixels * (_CUT_BINS - 1)
    lower = places.astype(np.intp)
    upper_share, bins = places - lower, lower + np.arange(3) * _CUT_BINS
    counts = np.bincount(bins.ravel(), (1 - upper_share).ravel(), 3 * _CUT_BINS + 1)
    counts += np.bincount((bins + 1).ravel(), upper_share.ravel(), 3 * _CUT_BINS + 1)
    shares: NDArray[np.float64] = counts / bins.size
    return shares


def hop_on_grid(window: float, hop: float, frames: int) -> float:
    """Return the multiple of window / T next to ``hop``, with which consecutive windows share their frames."""
    step = window / frames
    return max(1, round(hop / step)) * step if math.isfinite(hop / step) else hop
