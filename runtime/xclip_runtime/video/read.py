"""Read a video file to the preprocessed frames of one clip."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from xclip_runtime.errors import VideoDecodeError, VideoNotFoundError
from xclip_runtime.util.deadline import UnresponsiveError, within
from xclip_runtime.video.frame_reader import FrameReader, Method, Request
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.sampling import Sampling, uniform
from xclip_runtime.video.threads import ThreadPolicy
from xclip_runtime.video.views import Views, three_crops

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.video.transforms import FrameTransform

Decoder = Literal["auto", "pyav"]


@dataclass(frozen=True)
class Clip:
    """The prepared frames of one video and how they were read."""

    frames: NDArray[np.uint8]
    """uint8 RGB (T, size, size, 3); from `read_views` (V, T, size, size, 3)."""
    indices: tuple[int, ...]
    """The T frame numbers, counted from 0 in the whole video; from `read_views` clips x T, clip after clip."""
    decoded: int
    """Distinct frames that were kept."""
    total: int
    """Frames in the video, or in the range from `start` to `end`."""
    decode_ms: float
    """Time spent opening and decoding, milliseconds."""
    prepare_ms: float
    """Time that decoding waited for resizing and cropping, milliseconds, on average of the parts that were decoded at
    once; where no other video is being read and there is one part, they go on beside decoding."""
    decoder: str
    """The decoder that delivered the frames: "pyav"; "array" where they were in memory."""
    codec: str
    """FFmpeg's name of the codec."""
    fps: float | None
    """Frames per second by the container, when it says."""
    method: Method
    """How the frames were reached: by decoding all frames, or only those that they depend on."""
    notes: tuple[str, ...] = ()
    """What was out of the ordinary, such as a wrong frame count in the container."""


def read_clip(
    path: str | os.PathLike[str],
    *,
    num_frames: int,
    transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
    sampling: Sampling = uniform,
    start: float = 0.0,
    end: float | None = None,
    decoder: Decoder = "auto",
    track: int | None = None,
    square_pixels: bool = False,
    max_pixels: int | None = None,
    max_duration: float | None = None,
    time_limit: float | None = 600.0,
    policy: ThreadPolicy | None = None,
) -> Clip:
    """Sample frames of a video file.

    The frames are those of a full decode at the sampled indices. The packets are read once without decoding them; then
    only those that the sampled frames depend on are decoded, and each frame is verified by its timestamp. Where packets
    do not identify the frames, or others come out than they say, all are decoded in order. Where keyframes allow it and
    no other video is being read, parts of the video are decoded at once, one a CPU, at most 4; `transform` is then
    called from several threads.

    Rotation and mirroring by the container are applied. Interlaced frames are taken as they are stored, both fields
    woven. Sample aspect ratios are ignored, as the original and transformers do, unless `square_pixels` is set.

    Args:
        path: A local video file.
        num_frames: Frames to sample; the strategies repeat frames of a shorter video.
        transform: The preprocessing profile, or what else makes of a frame, uint8 RGB (H, W, 3), what is kept.
        sampling: The strategy, see `sampling`.
        start: Where to begin, seconds from the first frame.
        end: Where to stop, seconds; None for the end of the video.
        decoder: "auto" or "pyav": both are PyAV, which is FFmpeg.
        track: Number among the picture tracks, from 0; None for FFmpeg's best, cover art and thumbnails left out.
        square_pixels: Stretch frames by their sample aspect ratio, as players do.
        max_pixels: Largest width times height of any frame; None for any.
        max_duration: Longest duration by the container, seconds; None for any.
        time_limit: Seconds after which reading is given up, even where a decoder hangs; None for no limit.
        policy: Sizes from which threads and parts pay off; None for measured ones.

    Raises:
        VideoNotFoundError: No file at `path`.
        VideoDecodeError: Not a video, damaged beyond reading, or an unsupported codec.
        VideoTimeoutError: Over the time limit.
        VideoLimitError: More pixels or seconds than allowed.
        NoFramesError: The file contains no video frames.
        VideoError: The video is fine, but holds no frame from `start` to `end`, not those that `sampling` names, or no
            picture track of that number.
        ValueError: An option out of its range.
    """
    check_decoder(decoder)
    policy = policy or ThreadPolicy()
    name = _regular_file(path)
    request = Request(name, num_frames, sampling, start, end, time_limit, transform, max_duration)
    open_decoder = partial(
        PyAVDecoder, name, track=track, square_pixels=square_pixels, max_pixels=max_pixels, policy=policy
    )
    reader = FrameReader(request, open_decoder, policy)
    try:
        return within(time_limit, lambda: _clip(request, reader))
    except UnresponsiveError:
        raise request.timeout() from None


def read_views(
    path: str | os.PathLike[str], *, num_frames: int, transform: FrameTransform, views: Views, **options: Any
) -> Clip:
    """Like `read_clip`, with its options, for multi-view scoring.

    Clip c of C takes every C-th of the C * `num_frames` sampled frames, from the c-th on.

    Returns:
        Frames (V, T, size, size, 3), view number crop * clips + clip.
    """
    cut = partial(three_crops, transform=transform) if views.crops == 3 else transform
    clip = read_clip(path, num_frames=num_frames * views.clips, transform=cut, **options)
    square = clip.frames.shape[-3:]
    # (T, clips, crops, …) to (crops, clips, T, …)
    frames = clip.frames.reshape(num_frames, views.clips, views.crops, *square).swapaxes(0, 2)
    indices = np.array(clip.indices).reshape(num_frames, views.clips).T.ravel()
    return replace(clip, frames=frames.reshape(len(views), num_frames, *square), indices=tuple(indices.tolist()))


def check_decoder(decoder: str) -> None:
    """Raise ValueError for a decoder that there is not, or no longer."""
    if decoder == "opencv":
        message = "OpenCV no longer reads videos: leave decoder out"
        raise ValueError(message)
    if decoder not in get_args(Decoder):
        message = f"unknown decoder {decoder!r}: use one of {', '.join(get_args(Decoder))}"
        raise ValueError(message)


def _clip(request: Request, reader: FrameReader) -> Clip:
    decoder = reader.read()
    return Clip(
        frames=reader.frames,
        indices=tuple(reader.indices),
        decoded=len(set(reader.indices)),
        total=reader.in_range,
        decode_ms=(time.perf_counter() - request.begun) * 1e3 - reader.prepare_ms,
        prepare_ms=reader.prepare_ms,
        decoder=decoder.name,
        codec=decoder.codec,
        fps=decoder.fps,
        method=reader.method,
        notes=tuple(reader.notes),
    )


def _regular_file(path: str | os.PathLike[str]) -> str:
    name = os.fspath(path)
    try:
        status = os.stat(name)  # noqa: PTH116 - Path would change the name that the messages quote
    except FileNotFoundError:
        message = f"no such file: {name}: check the path"
        raise VideoNotFoundError(message) from None
    except (OSError, ValueError) as error:
        message = f"{name!r} cannot be read ({error}): check the path and its permissions"
        raise VideoNotFoundError(message) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        message = f"{name} is {kind}: pass a video file"
        if stat.S_ISDIR(status.st_mode):
            message += ", or to the command a folder with files such as .mp4, .mkv or .webm in it"
        raise VideoDecodeError(message)
    if status.st_size == 0:
        message = f"{name} is empty (0 bytes): copy or download it again"
        raise VideoDecodeError(message)
    return name
