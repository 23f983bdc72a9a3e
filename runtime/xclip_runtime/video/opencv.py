"""Decoding with OpenCV's bundled FFmpeg."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import cv2

from xclip_runtime.errors import VideoDecodeError
from xclip_runtime.video.index import FrameIndex
from xclip_runtime.video.reader import cannot_open

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

CODEC_NAMES = {
    "avc1": "h264",
    "av01": "av1",
    "fmp4": "mpeg4",
    "hev1": "hevc",
    "hvc1": "hevc",
    "mjpg": "mjpeg",
    "mp4v": "mpeg4",
    "vp08": "vp8",
    "vp09": "vp9",
    "vp80": "vp8",
    "vp90": "vp9",
    "xvid": "mpeg4",
}
"""FFmpeg's name of a codec for the four-character codes under which containers store it."""

# OpenCV's grab() returns False for a damaged packet as it does at the end of the file, and goes on when asked again.
_DAMAGED_PACKETS_IN_A_ROW = 64
_REORDER_LIMIT = 8

_QUIET_LOG_LEVEL = "-8"
_log_lock = threading.Lock()
_ffmpeg_is_quiet = False
_opening = 0
_level_before = 0
# OpenCV 5 moved the two functions into a module of their own.
_logging: Any = getattr(cv2.utils, "logging", cv2)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep FFmpeg and OpenCV from writing to stderr about a file that we report on with an exception.

    OpenCV's own level is lowered while any thread is opening a file, then restored. FFmpeg's level is read from the
    environment by the first capture of the process and cannot be set later, so the first call sets it for that moment,
    unless the user has. Nothing is redirected: other messages still reach stderr.
    """
    global _ffmpeg_is_quiet, _opening, _level_before  # noqa: PLW0603
    with _log_lock:
        if _opening == 0:
            _level_before = _logging.getLogLevel()
            _logging.setLogLevel(min(_level_before, 1))  # FATAL
        _opening += 1
        if not _ffmpeg_is_quiet:
            _ffmpeg_is_quiet = True
            if "OPENCV_FFMPEG_LOGLEVEL" not in os.environ and "OPENCV_FFMPEG_DEBUG" not in os.environ:
                os.environ["OPENCV_FFMPEG_LOGLEVEL"] = _QUIET_LOG_LEVEL
                try:
                    cv2.VideoCapture(os.devnull, cv2.CAP_FFMPEG)
                finally:
                    del os.environ["OPENCV_FFMPEG_LOGLEVEL"]
    try:
        yield
    finally:
        with _log_lock:
            _opening -= 1
            if _opening == 0:
                _logging.setLogLevel(_level_before)


def _decoding_threads() -> int:
    """FFmpeg's own choice, which OpenCV replaces by the number of cores of the whole machine.

    Each thread holds a picture of its own: without a limit, a large server would need gigabytes for a 4K video.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores + 1, 16)


def require_utf8(name: str) -> None:
    """Refuse a name that would crash OpenCV.

    Raises:
        VideoDecodeError: The bytes of the name are not UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        msg = f"{name!r} is not a name in UTF-8, which OpenCV cannot open: rename the file"
        raise VideoDecodeError(msg) from None


class OpenCVDecoder:
    """One pass over a video file through cv2.VideoCapture; see `decode.VideoDecoder`."""

    name = "opencv"
    # cv2.VideoCapture.set seeks to a keyframe at least this many frames before the one that it is asked for.
    seek_margin = 16

    def __init__(self, path: str) -> None:
        require_utf8(path)
        self._path = path
        with _quiet():
            self._capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, _decoding_threads()])
        if not self._capture.isOpened():
            raise cannot_open(path)
        # OpenCV 4 answers 0 where OpenCV 5 answers -1.
        self.expected = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < float("inf") else None
        fourcc = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        tag = fourcc.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ").lower() if fourcc > 0 else "unknown"
        self.codec = CODEC_NAMES.get(tag, tag)
        self._grabbed = 0
        self._picture: NDArray[np.uint8] | None = None

    def grab(self) -> bool:
        """Decode the next picture; False at the end."""
        grabbed = any(self._capture.grab() for _ in range(_DAMAGED_PACKETS_IN_A_ROW))
        self._grabbed += grabbed
        return grabbed

    @property
    def time(self) -> float:
        """When the last picture is shown, milliseconds."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC)

    @property
    def stopped_short(self) -> bool:
        """After the end: whether there may be more pictures, as OpenCV 4 stops one past the count in the header.

        AVI stores that count apart from the pictures, so it can be wrong; other containers derive it from them.
        """
        if self._grabbed != self.expected + 1:
            return False
        with open(self._path, "rb") as file:  # noqa: PTH123
            return file.read(4) == b"RIFF"

    def retrieve(self) -> NDArray[np.uint8]:
        """The picture of the last `grab`: uint8 BGR (H, W, 3), upright, overwritten by the next call."""
        ok, picture = self._capture.retrieve(self._picture)
        if not ok:
            msg = f"a picture of {self._path} cannot be converted to BGR: convert the file to MP4 (H.264)"
            raise VideoDecodeError(msg)
        self._picture = cast("NDArray[np.uint8]", picture)
        return self._picture

    def scan(self) -> FrameIndex | None:
        """List the pictures without decoding them, or None where that cannot be trusted.

        In raw mode the capture only reads packets. OpenCV before 4.11 leaves their timestamps out.
        """
        with _quiet():
            packets = cv2.VideoCapture(self._path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
        times, keys = [], []
        while packets.grab():
            times.append(packets.get(cv2.CAP_PROP_POS_MSEC))
            keys.append(packets.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0)
        packets.release()
        index = FrameIndex.from_packets(times, keys)
        # Where a keyframe stands far ahead of its place in the shown order, a seek may land on one that is shown after
        # the wanted picture and nothing would tell.
        return index if index is not None and index.reorder < _REORDER_LIMIT else None

    def seek(self, index: FrameIndex, frame: int, key: int) -> bool:
        """Go back or forth so that `frame` or one shortly before it is grabbed next.

        OpenCV turns the number it is given into a time, seeks to the keyframe at or before it, derives that keyframe's
        number from its time, and counts pictures from there: hence a number relative to the keyframe.
        """
        fps = self.fps or 0.0
        start, landing = (round(index.times[at] * fps / 1e3) for at in (0, key))
        return self._capture.set(cv2.CAP_PROP_POS_FRAMES, frame - key + landing - start)

    def close(self) -> None:
        """Free the file and the codec."""
        self._capture.release()
