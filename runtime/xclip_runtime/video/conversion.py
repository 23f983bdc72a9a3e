"""Conversion of decoded frames to upright RGB arrays: colours, size and orientation are looked at for every frame."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from xclip_runtime.errors import VideoDecodeError, VideoLimitError

if TYPE_CHECKING:
    from fractions import Fraction

    from numpy.typing import NDArray

    from xclip_runtime.video.options import ReadOptions

# AVColorSpace of libavutil/pixfmt.h: RGB, none (2, which FFmpeg takes for BT.601), and the matrices that swscale knows.
_MATRICES = (0, 1, 2, 4, 5, 6, 7, 9)
_BT601 = 5
# Anamorphic films stretch by up to 2; a header that says far more is damaged, and would make gigabytes of a frame.
_WIDEST_PIXEL = 8


class FrameConverter:
    """Converts the frames of one decoder, one at a time.

    Interlaced frames are taken as they are stored, both fields woven, as the loaders of the checkpoints' training did.
    They are stretched by `aspect`, the width of a pixel by its height, where there is one.
    """

    def __init__(self, name: str, options: ReadOptions, aspect: Fraction | None = None) -> None:
        self._name = name
        self._options = options
        self._aspect = aspect if aspect and max(aspect, 1 / aspect) <= _WIDEST_PIXEL else 1
        self._reformatter = VideoReformatter()
        self._weaver = _Weaver()

    def __call__(self, frame: Any) -> NDArray[np.uint8]:
        """Convert a frame of PyAV to uint8 RGB (H, W, 3), upright, in memory that belongs to no other frame.

        Raises:
            VideoLimitError: The frame has too many pixels.
            VideoDecodeError: FFmpeg cannot convert its pixel format.
        """
        width = max(round(frame.width * self._aspect), 1)
        check_limits(self._name, self._options, max(width, frame.width), frame.height)
        try:
            woven = self._weaver(frame) if frame.interlaced_frame else frame
            matrix = None if frame.colorspace in _MATRICES else _BT601
            converted = self._reformatter.reformat(
                woven, format="rgb24", src_colorspace=matrix, interpolation=Interpolation.BICUBIC, threads=1
            )
        except (av.error.FFmpegError, ValueError) as error:
            message = f"a frame of {self._name} cannot be converted to RGB ({error}): convert the file to MP4 (H.264)"
            raise VideoDecodeError(message) from None
        rgb = _plane(converted)
        if self._aspect != 1:
            rgb = np.asarray(cv2.resize(rgb, (width, frame.height)), np.uint8)
        return upright(rgb, frame)


def check_limits(name: str, options: ReadOptions, width: int, height: int, duration: float | None = None) -> None:
    """Raise VideoLimitError for more pixels or seconds than allowed."""
    pixels, seconds = options.max_pixels, options.max_duration
    if pixels is not None and width * height > pixels:
        message = f"{name} has frames of {width}x{height} pixels, at most {pixels} are allowed: make it smaller"
        raise VideoLimitError(message)
    if seconds is not None and duration is not None and duration > seconds:
        message = f"{name} lasts {duration:.0f} s, at most {seconds:g} s are allowed: cut it"
        raise VideoLimitError(message)


def upright(image: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """Rotate and mirror the RGB image of a frame by its display matrix.

    The matrix is `AV_PKT_DATA_DISPLAYMATRIX` of FFmpeg, row by row: a pixel at (x, y) is shown at
    (m[0] x + m[3] y, m[1] x + m[4] y). Other angles than right ones are rounded to them.
    """
    try:
        matrix = next((data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"), None)
    except ValueError:  # PyAV lists none where one, such as EXIF, is newer than it; the rotation can still be had.
        return np.ascontiguousarray(np.rot90(image, frame.rotation // 90))
    if matrix is None:
        return image
    a, b, _, c, d = np.frombuffer(matrix, np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        image, a, d = np.asarray(cv2.transpose(image), np.uint8), c, b
    if a < 0:
        image = np.asarray(cv2.flip(image, 1), np.uint8)
    if d < 0:
        image = np.asarray(cv2.flip(image, 0), np.uint8)
    return image


def _plane(frame: Any) -> NDArray[np.uint8]:
    """View the pixels of a RGB frame."""
    plane = frame.planes[0]
    stride = plane.line_size
    rows = np.frombuffer(plane, np.uint8).reshape(frame.height, abs(stride))[:, : 3 * frame.width]
    # Frames of uncompressed files may be stored bottom up.
    return (rows if stride > 0 else rows[::-1].copy()).reshape(frame.height, frame.width, 3)


class _Weaver:
    """Declares interlaced frames progressive: swscale would convert their fields one by one, unlike other loaders."""

    def __init__(self) -> None:
        self._described: tuple[int, int, str] | None = None

    def __call__(self, frame: Any) -> Any:
        described = frame.width, frame.height, frame.format.name
        if described != self._described:
            self._graph = av.filter.Graph()
            source = self._graph.add("buffer", "video_size={}x{}:pix_fmt={}:time_base=1/1000".format(*described))
            progressive, sink = self._graph.add("setfield", "mode=prog"), self._graph.add("buffersink")
            self._graph.link_nodes(source, progressive, sink).configure()
            self._described = described
        self._graph.push(frame)
        return self._graph.pull()
