"""Read a video file to the preprocessed frames of one clip."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.util.deadline import UnresponsiveError, within
from xclip_runtime.util.inputs import as_file, is_file_content
from xclip_runtime.util.paths import regular_file
from xclip_runtime.util.plain_text import printable
from xclip_runtime.video.frame_reader import Clip, FrameReader
from xclip_runtime.video.options import ReadOptions
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.sampling import Sampling, uniform
from xclip_runtime.video.views import Views, three_crops

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.util.inputs import VideoFile
    from xclip_runtime.video.transforms import FrameTransform


def read_clip(
    path: VideoFile,
    *,
    num_frames: int,
    transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    sampling: Sampling = uniform,
    **options: Any,
) -> Clip:
    """Sample frames of a video file.

    The frames are those of a full decode at the sampled indices. The packets are read once without decoding them; then
    only those that the sampled frames depend on are decoded, and each frame is verified by its timestamp. Where packets
    do not identify the frames, or others come out than they say, all are decoded in order. Where keyframes allow it and
    no other video is being read, parts of the video are decoded at once, one a CPU, at most 16; `transform` is then
    called from several threads.

    Rotation and mirroring by the container are applied. Interlaced frames are taken as they are stored, both fields
    woven. Sample aspect ratios are ignored, as the original and transformers do, unless `square_pixels` is set.

    Args:
        path: A local video file, or its content as bytes or as a binary file.
        num_frames: Frames to sample; the strategies repeat frames of a shorter video.
        transform: The preprocessing profile, or what else makes of a frame, uint8 RGB (H, W, 3), what is kept.
        sampling: The strategy, see `sampling`.
        options: Those of `options.ReadOptions`.

    Raises:
        VideoNotFoundError: No file at `path`.
        VideoDecodeError: Not a video, damaged beyond reading, or an unsupported codec.
        VideoTimeoutError: Over the time limit.
        VideoLimitError: More pixels or seconds than allowed.
        NoFramesError: The file contains no video frames.
        VideoError: The video is fine, but holds no frame from `start` to `end`, not those that `sampling` names, or no
            video track of that number.
        ValueError: An option out of its range.
    """
    if is_file_content(path):
        with as_file(path) as file:
            return read_clip(file, num_frames=num_frames, transform=transform, sampling=sampling, **options)
    chosen = ReadOptions(**options)
    name = regular_file(path)
    opened = partial(PyAVDecoder, name, chosen)
    reader = FrameReader(printable(name), num_frames, sampling, transform, options=chosen, open_decoder=opened)
    try:
        return within(chosen.time_limit, reader.read)
    except UnresponsiveError:
        raise reader.timeout() from None


def read_views(path: VideoFile, *, num_frames: int, transform: FrameTransform, views: Views, **options: Any) -> Clip:
    """Read the clips of several views; the options are those of `read_clip`.

    Clip c of C takes every C-th of the C * `num_frames` sampled frames, from the c-th on.

    Returns:
        Frames (V, T, size, size, 3), view number crop * positions + position.
    """
    cut = partial(three_crops, transform=transform) if views.crops == 3 else transform
    clip = read_clip(path, num_frames=num_frames * views.positions, transform=cut, **options)
    shape = clip.frames.shape[-3:]
    # (T, positions, crops, …) to (crops, positions, T, …)
    frames = clip.frames.reshape(num_frames, views.positions, views.crops, *shape).swapaxes(0, 2)
    indices = np.array(clip.indices).reshape(num_frames, views.positions).T.ravel()
    return replace(clip, frames=frames.reshape(len(views), num_frames, *shape), indices=tuple(indices.tolist()))
