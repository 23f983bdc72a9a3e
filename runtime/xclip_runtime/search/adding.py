"""Read files and compute the features of their windows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from xclip_runtime.results import Encoding
from xclip_runtime.search.store import Source, absolute
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import earliest_end, open_source
from xclip_runtime.util.paths import regular_file
from xclip_runtime.video import Clip
from xclip_runtime.video.frame_reader import ASSUMED_FPS
from xclip_runtime.video.load import Reading
from xclip_runtime.video.processes import read_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from xclip_runtime.errors import XClipError
    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip
    from xclip_runtime.results import VideoFeatures
    from xclip_runtime.streaming.windows import Window
    from xclip_runtime.video.processes import ReadVideo

Outcome = Literal["added", "replaced", "resumed"]


@dataclass(frozen=True)
class Job:
    """File to read."""

    name: str
    """Path as given."""
    source: Source
    outcome: Outcome
    """Outcome if the file can be read."""


class WindowFeatures(NamedTuple):
    """Window of a file with its features."""

    start: float
    """Seconds from the first frame of the file."""
    end: float
    features: VideoFeatures
    encoding: Encoding


def source_of(name: str, window: float | None, hop: float | None) -> Source:
    """Read the size and time of change of a file, with the errors of `regular_file`."""
    status = os.stat(regular_file(name))  # noqa: PTH116 - as it is spelt
    return Source(absolute(name), status.st_size, status.st_mtime_ns, window, hop)


def whole_features(
    model: XClip, plan: Iterable[object], workers: int | None
) -> Iterator[WindowFeatures | XClipError | None]:
    """Compute the features of each file as one window, while the next are read; None for what is not a `Job`."""

    def read(job: object, read_video: ReadVideo) -> Clip | None:
        if not isinstance(job, Job):
            return None
        return read_video(job.name, model.bundle.num_frames, model.transform, Reading())

    def compute(pairs: Sequence[tuple[object, Clip | None]]) -> list[WindowFeatures | None]:
        return [None if clip is None else _features(model, clip) for _, clip in pairs]

    return read_ahead(plan, read, compute, workers=workers)


def _features(model: XClip, clip: Clip) -> WindowFeatures:
    encoding = Encoding.all_new(model.bundle.num_frames)
    return WindowFeatures(0.0, clip.total / (clip.fps or ASSUMED_FPS), model.features(clip), encoding)


def window_features(model: XClip, job: Job, skip: set[float], reuse: Reuse | None) -> Iterator[WindowFeatures]:
    """Compute the features of the windows of a file, except those with starts to skip, while a thread reads on.

    With ``reuse`` from cached frames, see `xclip_runtime.inference.cached_frames`.
    """
    window, hop = job.source.window, job.source.hop
    opened = open_source(job.source.path)
    windows = model.windows(window or 0.0, hop, fps=opened.fps, ends_after=earliest_end(opened))
    encoder = model.window_encoder(reuse) if reuse else None
    origin = None
    for item in WindowFeed(opened, windows, model.transform, newest_wins=False):
        cut = item.window
        origin = cut.start if origin is None else origin
        start = cut.start - origin
        # A clock that is set back within a file repeats starts; the first window of a start stays.
        if start not in skip:
            exact = Encoding.all_new(len(cut.prepared))
            features, encoding = encoder.encode(cut) if encoder else (model.features(_clip_of(cut)), exact)
            yield WindowFeatures(start, cut.end - origin, features, encoding)


def _clip_of(window: Window) -> Clip:
    return Clip(
        frames=window.frames,
        indices=tuple(window.numbers),
        decoded=len(window.numbers),
        total=len(window.numbers),
        decode_ms=0.0,
        prepare_ms=0.0,
        decoder="stream",
        codec="unknown",
        fps=None,
        method="sequential",
    )
