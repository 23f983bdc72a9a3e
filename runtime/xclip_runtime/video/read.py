"""From a video file to the prepared frames of one clip."""

from __future__ import annotations

import os
import stat
import time
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from xclip_runtime.errors import NoFramesError, VideoDecodeError, VideoNotFoundError
from xclip_runtime.util.deadline import DeadlineError, within
from xclip_runtime.video.frame_reader import Method, Reader, Request, VideoDecoder
from xclip_runtime.video.opencv import OpenCVDecoder
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.sampling import Sampling, uniform
from xclip_runtime.video.views import Views, three_crops

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.video.transforms import FrameTransform

Decoder = Literal["auto", "opencv", "pyav"]

_DECODERS: dict[str, Callable[[str], VideoDecoder]] = {"opencv": OpenCVDecoder, "pyav": PyAVDecoder}


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
    """The decoder that delivered the frames: "opencv" or "pyav"."""
    codec: str
    """FFmpeg's name of the codec, or its four-character code, or "unknown"."""
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
    decoder: Decoder = "pyav",
    time_limit: float | None = 600.0,
) -> Clip:
    """Sample frames of a video file.

    The frames are those of a full decode at the sampled indices. Only they are kept, prepared as they arrive. The
    container's frame count is taken as a guess: when decoding finds another number, the indices are those of the real
    number and a second pass reads what is missing. Videos are first listed packet by packet, but for small ones and
    those that tell that each picture depends on the one before; where the list shows that pictures can be left out,
    only those that the wanted ones depend on are decoded, each verified by its timestamp. Where keyframes allow it and
    no other video is being read, parts of the video are decoded at once, one a CPU, at most 4; `transform` is then
    called from several threads.

    Args:
        path: A local video file.
        num_frames: Frames to sample; the strategies repeat frames of a shorter video.
        transform: The preprocessing profile, or what else makes of a picture, uint8 BGR (H, W, 3), what is kept.
        sampling: The strategy, see `sampling`.
        start: Where to begin, seconds from the first frame.
        end: Where to stop, seconds; None for the end of the video.
        decoder: "auto" is OpenCV, then PyAV where OpenCV fails and the extra [av] is installed.
        time_limit: Seconds after which reading is given up, even where a decoder hangs; None for no limit.

    Raises:
        VideoNotFoundError: No file at `path`.
        VideoDecodeError: Not a video, damaged beyond reading, or an unsupported codec.
        VideoTimeoutError: Over the time limit.
        NoFramesError: The video holds no picture.
        VideoError: The video is fine, but holds no frame from `start` to `end`, or not those that `sampling` names.
        MissingExtraError: `decoder` is "pyav" and the extra [av] is not installed.
        ValueError: An option out of its range.
    """
    request = Request(_regular_file(path), num_frames, sampling, start, end, time_limit, prepare=transform)
    return _read(request, decoder)


def read_views(
    path: str | os.PathLike[str],
    *,
    num_frames: int,
    transform: FrameTransform,
    views: Views,
    sampling: Sampling = uniform,
    start: float = 0.0,
    end: float | None = None,
    decoder: Decoder = "pyav",
    time_limit: float | None = 600.0,
) -> Clip:
    """Like `read_clip` for multi-view scoring: frames (V, T, size, size, 3), view number crop * clips + clip.

    Clip c of C takes every C-th of the C * `num_frames` sampled frames, from the c-th on.
    """
    cut = partial(three_crops, transform=transform) if views.crops == 3 else transform
    request = Request(_regular_file(path), num_frames * views.clips, sampling, start, end, time_limit, prepare=cut)
    clip = _read(request, decoder)
    square = clip.frames.shape[-3:]
    # (T, clips, crops, …) to (crops, clips, T, …)
    frames = clip.frames.reshape(num_frames, views.clips, views.crops, *square).swapaxes(0, 2)
    indices = np.array(clip.indices).reshape(num_frames, views.clips).T.ravel()
    return replace(clip, frames=frames.reshape(len(views), num_frames, *square), indices=tuple(indices.tolist()))


def _read(request: Request, decoder: Decoder) -> Clip:
    """Read with the chosen decoder; "auto" turns to PyAV where OpenCV fails or may have ended early."""
    try:
        return within(request.time_limit, lambda: _read_with(request, decoder))
    except DeadlineError:
        raise request.timeout() from None


def _read_with(request: Request, decoder: Decoder) -> Clip:
    if decoder not in get_args(Decoder):
        msg = f"unknown decoder {decoder!r}: use one of {', '.join(get_args(Decoder))}"
        raise ValueError(msg)
    if decoder == "auto":
        decoder = "pyav"
    if decoder != "auto":
        return _clip(request, Reader(request, _DECODERS[decoder]))
    has_pyav = find_spec("av") is not None
    reader = Reader(request, OpenCVDecoder)
    try:
        clip = _clip(request, reader)
    except (VideoDecodeError, NoFramesError):
        if not has_pyav:
            raise
        reason = "OpenCV gives no frame"
    else:
        if not reader.stopped_short:
            return clip
        reason = "OpenCV reads no further than the frame count of the container"
        if not has_pyav:
            return replace(clip, notes=(f"{reason}: pip install 'xclip-onnx[av]' to see the rest", *clip.notes))
    clip = _clip(request, Reader(request, PyAVDecoder))
    return replace(clip, notes=(f"{reason}: read with PyAV", *clip.notes))


def _clip(request: Request, reader: Reader) -> Clip:
    decoder = reader.read()
    frames = reader.frames
    return Clip(
        frames=frames,
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
        msg = f"no such file: {name}: check the path"
        raise VideoNotFoundError(msg) from None
    except (OSError, ValueError) as error:
        msg = f"{name!r} cannot be read ({error}): check the path and its permissions"
        raise VideoNotFoundError(msg) from None
    if not stat.S_ISREG(status.st_mode):
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "not a regular file"
        msg = f"{name} is {kind}: pass a video file"
        if stat.S_ISDIR(status.st_mode):
            msg += ", or to the command a folder with files such as .mp4, .mkv or .webm in it"
        raise VideoDecodeError(msg)
    if status.st_size == 0:
        msg = f"{name} is empty (0 bytes): copy or download it again"
        raise VideoDecodeError(msg)
    return name
