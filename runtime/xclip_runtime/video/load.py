"""From whatever a user calls a video to a clip."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import FramesError
from xclip_runtime.video import Clip, Views, prepare_frames, read_views, uniform_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.video import Decoder, FrameTransform

Video = str | os.PathLike[str] | np.ndarray[Any, Any] | Clip
"""A path; frames as uint8 RGB of shape (T, H, W, 3), any T ≥ 1, sampled uniformly; or a clip that is read already."""


@dataclass(frozen=True)
class Reading:
    """Which part of a file is looked at, and how it is read. Frames in memory are taken as they are."""

    views: Views = field(default_factory=Views)
    """Temporal clips and crops; the probabilities are averaged over them."""
    start: float = 0.0
    """Seconds from the first frame."""
    end: float | None = None
    """Seconds; None for the end of the video."""
    decoder: Decoder = "pyav"
    """"opencv", "pyav" (extra [av]), or "auto": OpenCV, then PyAV where OpenCV fails."""
    time_limit: float | None = 600.0
    """Seconds after which reading one file is given up; None for no limit."""


def read_video(video: Video, num_frames: int, transform: FrameTransform, reading: Reading) -> Clip:
    """Read, sample and prepare.

    Returns:
        A clip whose frames are uint8 RGB (V, T, size, size, 3); V is the number of views.

    Raises:
        VideoError: The file cannot be read as a video.
        FramesError: The array is not uint8 (T, H, W, 3).
        MissingExtraError: The decoder "pyav" is not installed.
    """
    if isinstance(video, Clip):
        return video
    if isinstance(video, np.ndarray):
        return clip_of_frames(video, num_frames, transform)
    return read_views(
        video,
        num_frames=num_frames,
        transform=transform,
        views=reading.views,
        start=reading.start,
        end=reading.end,
        decoder=reading.decoder,
        time_limit=reading.time_limit,
    )


def clip_of_frames(frames: NDArray[np.uint8], num_frames: int, transform: FrameTransform) -> Clip:
    """Sample and prepare frames that are already decoded.

    Args:
        frames: uint8 RGB (T, H, W, 3), any T ≥ 1.
        num_frames: How many to sample uniformly.
        transform: How to bring them to the model's size.

    Raises:
        FramesError: The array has another dtype or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        message = f"frames are {frames.dtype} {frames.shape}: give uint8 RGB of shape (T, H, W, 3), T at least 1"
        raise FramesError(message)
    start = time.perf_counter()
    indices = uniform_indices(len(frames), num_frames)
    prepared = prepare_frames(frames[indices], transform)
    return Clip(
        frames=prepared,
        indices=tuple(indices.tolist()),
        decoded=len(np.unique(indices)),
        total=len(frames),
        decode_ms=0.0,
        prepare_ms=1000 * (time.perf_counter() - start),
        decoder="array",
        codec="raw",
        fps=None,
        method="sequential",
    )
