"""Encode frames as video files, with the encoders of PyAV."""

from __future__ import annotations

import os
from fractions import Fraction
from typing import TYPE_CHECKING

import av

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# The default of this encoder takes seconds for a clip of a few kilobytes.
_FASTER = {"libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"}}


def write_video(
    path: str | os.PathLike[str],
    frames: NDArray[np.uint8],
    fps: float | Fraction,
    codec: str = "libx264",
    *,
    crf: int = 23,
    pix_fmt: str = "yuv420p",
) -> None:
    """Encode frames; the container follows from the file's suffix.

    Args:
        path: File to write, replaced if it exists.
        frames: (T, H, W, 3) uint8 RGB; H and W even for the default pixel format.
        fps: Frames a second; NTSC rates are exact as fractions, such as ``Fraction(30000, 1001)``.
        codec: Name of an encoder of FFmpeg.
        crf: Constant rate factor, for encoders that have one: 0 is lossless, 23 is x264's own choice.
        pix_fmt: Pixel format of the file.

    Raises:
        ValueError: The frames are not uint8 of that shape, or there is none.
    """
    if frames.dtype.name != "uint8" or frames.ndim != 4 or frames.shape[3] != 3 or not len(frames):
        message = f"frames are {frames.dtype.name} {frames.shape}: pass uint8 (T, H, W, 3) with T at least 1"
        raise ValueError(message)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(os.fspath(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": str(crf), **_FASTER.get(codec, {})})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
