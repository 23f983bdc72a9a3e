"""Read files and compute the features of their windows."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeVar, cast

from xclip_runtime.errors import VideoNotFoundError, XClipError
from xclip_runtime.search.store import Source, absolute
from xclip_runtime.streaming.feed import WindowFeed
from xclip_runtime.streaming.sources import open_source
from xclip_runtime.util.prefetch import pipelined
from xclip_runtime.video import Clip
from xclip_runtime.video.frame_reader import ASSUMED_FPS
from xclip_runtime.video.load import Reading, read_video

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xclip_runtime.model import XClip
    from xclip_runtime.results import VideoFeatures
    from xclip_runtime.streaming.windows import Window

Outcome = Literal["added", "replaced", "resumed"]
Settled = TypeVar("Settled")


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


def source_of(name: str, window: float | None, hop: float | None) -> Source:
    """Read the size and time of change of a file.

    Raises:
        VideoNotFoundError: The file is missing or cannot be read.
    """
    try:
        status = os.stat(name)  # noqa: PTH116 - Path would change the name that the message quotes
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{name!r} cannot be read ({reason}): check the path and its permissions"
        raise VideoNotFoundError(message) from None
    return Source(absolute(name), status.st_size, status.st_mtime_ns, window, hop)


def whole_features(
    model: XClip, plan: Iterable[Job | Settled], workers: int
) -> Iterator[tuple[Job, WindowFeatures | XClipError] | Settled]:
    """Compute the features of each file as one window, in the order of the plan, while the next files are read.

    Args:
        model: The model.
        plan: Jobs, and other items that are handed on in their place; iterated over in the caller's thread.
        workers: Threads that read.
    """

    def read(job: Job | Settled) -> Clip | XClipError | None:
        if not isinstance(job, Job):
            return None
        try:
            return read_video(job.name, model.bundle.num_frames, model.transform, Reading())
        except XClipError as error:
            return error

    def compute(
        job: Job | Settled, clip: Clip | XClipError | None
    ) -> tuple[Job, WindowFeatures | XClipError] | Settled:
        if not isinstance(job, Job) or clip is None:
            return cast("Settled", job)
        if isinstance(clip, XClipError):
            return job, clip
        return job, WindowFeatures(0.0, clip.total / (clip.fps or ASSUMED_FPS), model.features(clip))

    return pipelined(plan, read, compute, workers=workers)


def window_features(model: XClip, job: Job, skip: set[float]) -> Iterator[WindowFeatures]:
    """Compute the features of the windows of a file one by one, while a thread reads on.

    Args:
        model: The model.
        job: The file, and its windows.
        skip: Starts of windows to leave out, seconds.

    Raises:
        VideoError: The file cannot be opened, has no frames, or breaks off.
    """
    window, hop = job.source.window, job.source.hop
    opened = open_source(job.source.path)
    windows = model.windows(window or 0.0, hop, fps=opened.fps)
    origin = None
    for item in WindowFeed(opened, windows, model.transform, newest_wins=False):
        cut = item.window
        origin = cut.start if origin is None else origin
        start = cut.start - origin
        # A clock that is set back within a file repeats starts; the first window of a start stays.
        if start not in skip:
            yield WindowFeatures(start, cut.end - origin, model.features(_clip_of(cut)))


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
