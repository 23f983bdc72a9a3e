"""Load a path, array or clip as a `Clip`."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.errors import FramesError
from xclip_runtime.util.inputs import Frames, VideoFile, frames_of, is_file_content
from xclip_runtime.video import Clip, ReadOptions, Views, prepare_frames, read_views, uniform_indices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.video import FrameTransform

Video = VideoFile | Clip | Frames


@dataclass(frozen=True)
class Reading(ReadOptions):
    """Part of a file to read, number of views, and manner of reading. Frames in memory are taken as they are."""

    views: Views = field(default_factory=Views)
    """Temporal clips and crops; the probabilities are averaged over them."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.views, Views):
            message = f"views is {self.views!r}: give Views, such as Views(4, 3)"
            raise TypeError(message)

    @classmethod
    def of(cls, reading: Reading | None) -> Reading:
        """Return a reading, by default the whole file in one view; anything else is a TypeError."""
        if reading is None or isinstance(reading, Reading):
            return reading or cls()
        message = f"reading is an object of type {type(reading).__name__}: give a Reading, such as Reading(start=1.0)"
        raise TypeError(message)


def read_video(video: Video, num_frames: int, transform: FrameTransform, reading: Reading) -> Clip:
    """Read, sample and prepare a video.

    Returns:
        A clip whose frames are uint8 RGB (V, T, size, size, 3); V is the number of views.

    Raises:
        VideoError: The file cannot be read as a video.
        FramesError: The frames are not uint8 (T, H, W, 3).
    """
    if isinstance(video, Clip):
        return video
    if not isinstance(video, (str, os.PathLike)) and not is_file_content(video):
        return clip_of_frames(frames_of(video), num_frames, transform)
    return read_views(video, num_frames=num_frames, transform=transform, **vars(reading))


def clip_of_frames(frames: NDArray[np.uint8], num_frames: int, transform: FrameTransform) -> Clip:
    """Sample `num_frames` uniformly of frames that are already decoded, uint8 RGB (T, H, W, 3), and preprocess them.

    Raises:
        FramesError: The array has another dtype or shape.
    """
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        message = f"frames are {frames.dtype} {frames.shape}: give uint8 RGB of shape (T, H, W, 3), or a list of images"
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
