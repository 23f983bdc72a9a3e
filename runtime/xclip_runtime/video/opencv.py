"""Decoding with OpenCV's bundled FFmpeg."""

from __future__ import annotations

import io
import math
import os
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np

from xclip_runtime.errors import VideoDecodeError
from xclip_runtime.video import matroska
from xclip_runtime.video.edits import shown_part
from xclip_runtime.video.frame_reader import ASSUMED_FPS, cannot_open
from xclip_runtime.video.index import FrameIndex, Packet, list_packets, timed_by_order
from xclip_runtime.video.packets import HEAD, START_CODE, PacketReader
from xclip_runtime.video.threads import LIVE_THREADS, decoding_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from xclip_runtime.video.index import Excerpt

CODEC_NAMES = {
    "avc1": "h264",
    "av01": "av1",
    "fmp4": "mpeg4",
    "hev1": "hevc",
    "hvc1": "hevc",
    "mjpg": "mjpeg",
    "mp4v": "mpeg4",
    "mpg1": "mpeg1video",
    "mpg2": "mpeg2video",
    "vp08": "vp8",
    "vp09": "vp9",
    "vp80": "vp8",
    "vp90": "vp9",
    "xvid": "mpeg4",
}
"""FFmpeg's name of a codec for the four-character codes under which containers store it."""

# OpenCV's grab() returns False for a damaged packet as it does at the end of the file, and goes on when asked again.
_DAMAGED_PACKETS_IN_A_ROW = 64
_TURNS = {90: cv2.ROTATE_90_CLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_COUNTERCLOCKWISE}
_LIKELY = "h264", 1280 * 720
# A file of fewer bytes most likely has small pictures.
_BYTES_OF_A_LIKELY = 300_000
# The first bytes of containers that leave times out, of all or of some pictures. What an MPEG program stream is said to
# hold is an estimate from its times, often one frame short.
_AVI, _PROGRAM_STREAM = b"RIFF", b"\0\0\1\xba"
# Codecs whose pictures are shown as they are stored, but for those that others refer to.
_SHOWN_IN_TURN = ("mpeg1video", "mpeg2video", "mpeg4")
# What is listed is not read a second time when a video has no more bytes than this.
_BYTES_TO_HOLD = 16 << 20
# Bytes of the largest packet that stands in for a picture of MPEG-4 that another packet holds: a VOP that is not coded.
_PLACEHOLDER = 8
_WITH_START_CODES = ("h264", "hevc")
# ITU-T H.265 7.4.2.2: a clean random access picture (type 21) that follows on from something else than in the original
# is to be marked as a broken link (type 16).
_CLEAN_ACCESS, _BROKEN_LINK = START_CODE + b"\x2a", START_CODE + b"\x20"

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

    def __init__(self, path: str) -> None:
        require_utf8(path)
        self._path = path
        self._is_file = Path(path).is_file()
        self._threads = _likely_threads(path) if self._is_file else LIVE_THREADS
        self._capture = self._open(self._threads)
        self._container = _first_bytes(path) if self._is_file else b""
        self._read = False
        """Whether packets or pictures were read with the capture."""
        # OpenCV 4 answers 0 where OpenCV 5 answers -1.
        self.expected = max(int(self._capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0)
        if self._container == _PROGRAM_STREAM:
            self.expected = 0
        width, height = (self._capture.get(side) for side in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        self.pixels = int(width * height)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps = fps if 0 < fps < float("inf") else None
        fourcc = int(self._capture.get(cv2.CAP_PROP_FOURCC))
        tag = fourcc.to_bytes(4, "little").decode("ascii", "replace").strip("\0 ").lower() if fourcc > 0 else "unknown"
        self.codec = CODEC_NAMES.get(tag, tag)
        self._turn = _TURNS.get(int(self._capture.get(cv2.CAP_PROP_ORIENTATION_META)))
        self._header = b""
        """Of the track in Matroska, once `scan` has found it."""
        self._held: list[tuple[NDArray[np.uint8], bool]] = []
        """The packets of a small file that `scan` has read, and whether each is a key."""
        self._decodes = False
        self._grabbed = 0
        self._picture: NDArray[np.uint8] | None = None

    def grab(self) -> bool:
        """Decode the next picture; False at the end."""
        if not self._decodes:
            self._decodes = True
            self._rewind(decoding_threads(self.codec, self.pixels))
        grabbed = self._capture.grab()
        if not grabbed and self._grabbed != self.expected:
            grabbed = _grab_beyond_damage(self._capture)
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
        return self._container == _AVI

    def retrieve(self) -> NDArray[np.uint8]:
        """The picture of the last `grab`: uint8 BGR (H, W, 3), upright, overwritten by the next call."""
        self._picture = _retrieve(self._capture, self._picture, self._path)
        return self._picture

    def scan(self, patience: float = math.inf) -> FrameIndex | None:
        """List the pictures without decoding them, or None where that cannot be trusted or will not help.

        In raw mode the capture only reads packets. OpenCV before 4.11 leaves their timestamps out, and can read from
        files only.
        """
        if not hasattr(cv2, "IStreamReader"):
            return None
        if not self._tells_pictures_apart():
            if self.expected == 0:
                self.expected = sum(iter(self._packets().next, False))
            return None
        packets = list_packets(self._listed(), patience)
        return None if packets is None else self._index(packets)

    def _tells_pictures_apart(self) -> bool:
        if self._container == _AVI:  # It stores no times, and those of decoding are not those of showing.
            return self.codec == "mjpeg" or self._shows_in_turn()
        return self.codec in matroska.CODEC_IDS

    def _shows_in_turn(self) -> bool:
        """Whether the order of the packets stands in for times, which the container does not have for all of them."""
        return self._container in (_AVI, _PROGRAM_STREAM) and self.codec in _SHOWN_IN_TURN

    def _index(self, packets: list[Packet]) -> FrameIndex | None:
        part = shown_part(self._path)
        if part is not None:
            # Which pictures FFmpeg hides is its own business; a good guess saves a second pass.
            self.expected = sum(part.begin <= packet.time < part.end for packet in packets)
            return None
        if self._container == _AVI and len(packets) > self.expected:
            return None  # See `stopped_short`.
        self.expected = self.expected or len(packets)
        if self._shows_in_turn():
            if any(packet.size <= _PLACEHOLDER for packet in packets):
                return None
            packets = timed_by_order(packets, 1e3 / (self.fps or ASSUMED_FPS))
        return FrameIndex.from_packets(packets)

    def _listed(self) -> Iterator[Packet]:
        stored, reader = self._packets(), PacketReader(self.codec)
        room = _BYTES_TO_HOLD
        held: list[tuple[NDArray[np.uint8], bool]] = []
        while stored.next():
            data, key = stored.data, stored.key
            room -= data.size
            if room >= 0:
                held.append((data, key))
            elif held:
                held.clear()
            head = data[0, :HEAD].tobytes()
            time = stored.time if reader.is_shown(head) else math.nan
            yield Packet(time, reader.role(head, key=key), data.size)
        self._held = held
        private = b"" if self.codec in _WITH_START_CODES else stored.private
        self._header = matroska.header(self.codec, *stored.size, private)

    def excerpt(self, index: FrameIndex, excerpt: Excerpt, parts: int = 1) -> OpenCVExcerpt:
        """The pictures of some packets only, after `scan`."""
        stored = _HeldPackets(self._held) if self._held else _Packets(self._open(1))
        feed = _Feed(stored, self._header, PacketReader(self.codec), index, excerpt)
        threads = decoding_threads(self.codec, self.pixels, parts)
        return OpenCVExcerpt(self._path, feed, self._turn, index, threads)

    def close(self) -> None:
        """Free the file and the codec."""
        self._capture.release()

    def _open(self, threads: int) -> cv2.VideoCapture:
        capture = _open(self._path, threads)
        if not capture.isOpened():
            raise cannot_open(self._path)
        capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV 4.11 does not by itself.
        return capture

    def _rewind(self, threads: int) -> None:
        """Go to the start of a file, where more than its head was read or so many threads are to decode it."""
        if self._is_file and (self._read or threads != self._threads):
            self._capture.release()
            self._threads = threads
            self._capture = self._open(threads)
        self._read = True

    def _packets(self) -> _Packets:
        self._rewind(self._threads)
        return _Packets(self._capture)


class OpenCVExcerpt:
    """Pictures of some packets of a file, which cv2.VideoCapture decodes as a video of their own.

    A capture that seeks decodes sixteen pictures and more before its target, and every picture on the way; this one is
    handed the packets that are needed, from any number of places, as one stream.
    """

    def __init__(self, path: str, feed: _Feed, turn: int | None, index: FrameIndex, threads: int) -> None:
        self._path = path
        self._threads = threads
        self._feed = feed
        self._turn = turn
        self._index = index
        self._zero: int | None = None
        self._picture: NDArray[np.uint8] | None = None
        self._capture = self._open_run()

    def grab(self) -> bool:
        """Decode the next picture; False at the end."""
        while not self._capture.grab() and (self._feed.ended or not _grab_beyond_damage(self._capture)):
            if not self._feed.next_run():
                return False
            self._capture = self._open_run()
        stamp = round(self._capture.get(cv2.CAP_PROP_POS_MSEC))
        if self._zero is None:
            # OpenCV counts from the start of a stream, which FFmpeg may not have found out for a short one.
            self._zero = -self._feed.offset if stamp >= self._feed.first + self._feed.offset else self._feed.first
        self._number = stamp + self._zero
        return True

    @property
    def time(self) -> float:
        """When the last picture is shown, milliseconds; NaN where it is none of the index."""
        return float(self._index.times[self._number]) if 0 <= self._number < len(self._index) else math.nan

    def retrieve(self) -> NDArray[np.uint8]:
        """The picture of the last `grab`: uint8 BGR (H, W, 3), upright, overwritten by the next call."""
        self._picture = _retrieve(self._capture, self._picture, self._path)
        return self._picture if self._turn is None else cast("NDArray[np.uint8]", cv2.rotate(self._picture, self._turn))

    def close(self) -> None:
        """Free the file and the codec."""
        self._capture.release()
        self._feed.close()

    def _open_run(self) -> cv2.VideoCapture:
        self._zero = None
        return _open(self._feed, self._threads)


class _Packets:
    """The packets of the picture track in stored order, H.264 and HEVC with start codes."""

    def __init__(self, capture: cv2.VideoCapture) -> None:
        """Take the capture, which nothing was read from, for packets instead of pictures."""
        self._capture = capture
        self._capture.set(cv2.CAP_PROP_FORMAT, -1)
        self._capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        self.place = -1

    def next(self) -> bool:
        """Go to the next packet; False at the end."""
        self.place += 1
        return self._capture.grab()

    @property
    def time(self) -> float:
        """When the packet's picture is shown, milliseconds."""
        return self._capture.get(cv2.CAP_PROP_POS_MSEC)

    @property
    def key(self) -> bool:
        """Whether the container calls it a keyframe."""
        return self._capture.get(cv2.CAP_PROP_LRF_HAS_KEY_FRAME) > 0

    @property
    def data(self) -> NDArray[np.uint8]:
        """uint8 (1, size)."""
        return np.asarray(self._capture.retrieve()[1], np.uint8)

    @property
    def private(self) -> bytes:
        """What the container keeps for the decoder."""
        ok, data = self._capture.retrieve(flag=int(self._capture.get(cv2.CAP_PROP_CODEC_EXTRADATA_INDEX)))
        return np.asarray(data, np.uint8).tobytes() if ok and data is not None else b""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the stored picture."""
        return int(self._capture.get(cv2.CAP_PROP_FRAME_WIDTH)), int(self._capture.get(cv2.CAP_PROP_FRAME_HEIGHT))

    def close(self) -> None:
        """Free the file."""
        self._capture.release()


class _HeldPackets:
    """Packets that were read already, from the first on; see `_Packets`."""

    def __init__(self, held: list[tuple[NDArray[np.uint8], bool]]) -> None:
        self._held = held
        self.place = -1

    def next(self) -> bool:
        """Go to the next packet; False at the end."""
        self.place += 1
        return self.place < len(self._held)

    @property
    def data(self) -> NDArray[np.uint8]:
        """uint8 (1, size)."""
        return self._held[self.place][0]

    @property
    def key(self) -> bool:
        """Whether the container calls it a keyframe."""
        return self._held[self.place][1]

    def close(self) -> None:
        """Nothing is to be freed."""


class _Feed(io.BufferedIOBase):
    """The packets of an excerpt as Matroska, run after run; each is for a capture of its own.

    A run ends where the next packet begins anew and the decoder could not know. The times are the numbers of the
    pictures.
    """

    def __init__(
        self,
        stored: _Packets | _HeldPackets,
        header: bytes,
        reader: PacketReader,
        index: FrameIndex,
        excerpt: Excerpt,
    ) -> None:
        self._stored = stored
        self._header = header
        self._reader = reader
        self._numbers = index.numbers
        self._excerpt = excerpt
        self.offset = 1 - int(index.numbers.min())  # FFmpeg takes the time 0 for none.
        self._chunks = self._generate()
        self.first = 0
        """Number of the picture in the first packet of the run."""
        self.next_run()

    def next_run(self) -> bool:
        """Begin the next run; False at the end of the excerpt."""
        chunk = next(self._chunks, b"")
        self._buffer = self._header + chunk
        self._place = 0
        self.ended = not chunk
        """Whether all bytes of the run have been read."""
        return not self.ended

    def read(self, size: int | None = -1, /) -> bytes:
        """At most `size` bytes of the run; none at its end."""
        if self._place == len(self._buffer) and not self.ended:
            self._buffer, self._place = next(self._chunks, b""), 0
            self.ended = not self._buffer
        end = len(self._buffer) if size is None or size < 0 else self._place + size
        part = self._buffer[self._place : end]
        self._place += len(part)
        return part

    def seek(self, offset: int, whence: int = 0, /) -> int:  # noqa: ARG002
        """Refuse: there is no way back."""
        return -1

    def close(self) -> None:
        """Free the file."""
        self._stored.close()
        super().close()

    def _generate(self) -> Iterator[bytes]:
        """Clusters; empty bytes where a run ends."""
        parameter_sets = b""
        for place in self._excerpt.packets.tolist():
            while self._stored.place < place:
                if not self._stored.next():
                    return
                if self._stored.place == 0:
                    parameter_sets = self._reader.parameter_sets(self._stored.data[0, :HEAD].tobytes())
            data, number = self._stored.data.tobytes(), int(self._numbers[place])
            begins = place == self._excerpt.packets[0]
            if place in self._excerpt.starts:
                own_sets = self._reader.parameter_sets(data[:HEAD])
                parameter_sets = own_sets or parameter_sets
                told = begins or self._reader.role(data[:HEAD], key=True).instant
                if not told and self._reader.codec == "hevc":
                    data = data.replace(_CLEAN_ACCESS, _BROKEN_LINK)
                elif not told:
                    yield b""
                    begins = True
                if begins:
                    self.first = number
                    data = data if own_sets else parameter_sets + data
            yield matroska.cluster(number + self.offset, data, key=self._stored.key)


def _likely_threads(path: str) -> int:
    """Threads to open a file with, before more is known: opening decodes pictures to look at, so twice takes longer."""
    return decoding_threads(*_LIKELY) if Path(path).stat().st_size >= _BYTES_OF_A_LIKELY else 1


def _first_bytes(path: str) -> bytes:
    with open(path, "rb") as file:  # noqa: PTH123
        return file.read(4)


def _open(source: str | _Feed, threads: int) -> cv2.VideoCapture:
    with _quiet():
        return cv2.VideoCapture(cast("Any", source), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, threads])


def _grab_beyond_damage(capture: cv2.VideoCapture) -> bool:
    """Grab again after a failure; at the end of a file this takes milliseconds."""
    return any(capture.grab() for _ in range(_DAMAGED_PACKETS_IN_A_ROW))


def _retrieve(capture: cv2.VideoCapture, space: NDArray[np.uint8] | None, path: str) -> NDArray[np.uint8]:
    """The picture that was grabbed, uint8 BGR (H, W, 3), written into `space` where that has its size."""
    ok, picture = capture.retrieve(space)
    if not ok:
        msg = f"a picture of {path} cannot be converted to BGR: convert the file to MP4 (H.264)"
        raise VideoDecodeError(msg)
    return cast("NDArray[np.uint8]", picture)
