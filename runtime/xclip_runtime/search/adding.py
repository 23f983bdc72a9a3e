"""From files to windows with features."""

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
    """A file to read."""

    name: str
    """As given."""
    source: Source
    outcome: Outcome
    """What will have become of it."""


class Seen(NamedTuple):
    """A window that the model has seen."""

    start: float
    """Seconds from the first frame of the file."""
    end: float
    features: VideoFeatures


def source_of(name: str, window: float | None, hop: float | None) -> Source:
    """A file as it is now.

    Raises:
        VideoNotFoundError: There is no such file.
    """
    try:
        status = os.stat(name)  # noqa: PTH116 - Path would change the name that the message quotes
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"{name!r} cannot be read ({reason}): check the path and its permissions"
        raise VideoNotFoundError(message) from None
    return Source(absolute(name), status.st_size, status.st_mtime_ns, window, hop)


def see_whole(
    model: XClip, plan: Iterable[Job | Settled], workers: int
) -> Iterator[tuple[Job, Seen | XClipError] | Settled]:
    """Each file as one window, in the order of the plan; the next ones are read meanwhile.

    Args:
        model: What sees them.
        plan: Iterated over in the caller's thread. What is no job is handed on in its place.
        workers: Threads that read.
    """

    def read(job: Job | Settled) -> Clip | XClipError | None:
        if not isinstance(job, Job):
            return None
        try:
            return read_video(job.name, model.bundle.num_frames, model.transform, Reading())
        except XClipError as error:
            return error

    def see(job: Job | Settled, clip: Clip | XClipError | None) -> tuple[Job, Seen | XClipError] | Settled:
        if not isinstance(job, Job) or clip is None:
            return cast("Settled", job)
        if isinstance(clip, XClipError):
            return job, clip
        return job, Seen(0.0, clip.total / (clip.fps or ASSUMED_FPS), model.features(clip))

    return pipelined(plan, read, see, workers=workers)


def see_windows(model: XClip, job: Job, skip: set[float]) -> Iterator[Seen]:
    """One file window by window, each as it is ready; the file is read in a thread of its own meanwhile.

    Args:
        model: What sees them.
        job: The file and how it is cut.
        skip: Starts of windows to leave out, seconds.

    Raises:
        VideoError: The file cannot be opened, gives no picture, or breaks off.
    """
    window, hop = job.source.window, job.source.hop
    opened = open_source(job.source.path)
    cut = model.windows(window or 0.0, hop, fps=opened.fps)
    origin = None
    for taken in WindowFeed(opened, cut, model.transform, newest_wins=False):
        seen = taken.window
        origin = seen.start if origin is None else origin
        start = seen.start - origin
        # A clock that is set back within a file gives a start again; the first window of that name stays.
        if start not in skip:
            yield Seen(start, seen.end - origin, model.features(_clip_of(seen)))


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
