"""Where frames come from, one after the other with their times: cameras, addresses, files, standard input."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import cv2
import numpy as np

from xclip_runtime.errors import VideoDecodeError, VideoError, VideoNotFoundError
from xclip_runtime.video.frame_reader import cannot_open
from xclip_runtime.video.opencv import OpenCVDecoder, require_utf8
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.threads import LIVE_THREADS

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from xclip_runtime.video.frame_reader import VideoDecoder
    from xclip_runtime.video.read import Decoder

logger = logging.getLogger(__name__)

STANDARD_INPUT = "-"
# For a source that says neither when its pictures are shown nor how many there are a second.
_ASSUMED_FPS = 30.0
# OpenCV's grab() returns False for a damaged packet as it does at the end, and goes on when asked again.
_DAMAGED_PACKETS_IN_A_ROW = 64


class Moment(NamedTuple):
    """A frame of a source."""

    time: float
    """When it is shown, seconds."""
    picture: Callable[[], NDArray[np.uint8]]
    """Gives the frame, uint8 BGR (H, W, 3); to be called before the next moment is asked for, or not at all."""
    after_gap: bool = False
    """Whether the source broke and came back before this frame."""


class FrameSource(Protocol):
    """Something to iterate over once."""

    @property
    def live(self) -> bool:
        """Whether frames come when they will, and are lost when no one takes them."""

    @property
    def fps(self) -> float | None:
        """Frames a second, if known."""

    def __iter__(self) -> Iterator[Moment]:
        """The frames; their times increase."""

    def close(self) -> None:
        """End the iteration at its next step; any thread may call this."""


@dataclass(frozen=True)
class Backoff:
    """How a live source that broke is sought again."""

    first: float = 0.5
    """Seconds before the first attempt."""
    longest: float = 30.0
    """Seconds between attempts, which double up to this."""
    give_up: float = math.inf
    """Seconds without a frame after which the stream ends in an error."""
    timeout: float = 10.0
    """Seconds after which a source that neither sends nor closes counts as broken."""

    def waits(self) -> Iterator[float]:
        """Seconds before each attempt."""
        for attempt in count():
            yield min(self.first * 2.0**attempt, self.longest)


@dataclass(frozen=True)
class RawFormat:
    """Frames without any container: uint8 RGB, row after row, as `ffmpeg -f rawvideo -pix_fmt rgb24` writes them."""

    width: int
    height: int
    fps: float

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1 or not 0 < self.fps < math.inf:
            msg = f"raw frames of {self.width}x{self.height} at {self.fps} a second: all must be above 0"
            raise ValueError(msg)

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read WIDTHxHEIGHT@FPS, such as 640x480@25."""
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})@(\d+(?:\.\d+)?)", text)
        if match is None:
            msg = f"{text!r} is no raw format: use WIDTHxHEIGHT@FPS, such as 640x480@25"
            raise ValueError(msg)
        return cls(int(match[1]), int(match[2]), float(match[3]))


def open_source(
    source: str | int | os.PathLike[str],
    *,
    live: bool | None = None,
    raw: RawFormat | None = None,
    decoder: Decoder = "pyav",
    backoff: Backoff | None = None,
) -> FrameSource:
    """Open a source by its name.

    Args:
        source: Number of a camera; an address such as rtsp://… or http://…; "-" for standard input; or a file.
        live: Whether frames are lost when no one takes them, and the source is sought again when it breaks. None takes
            cameras as live, addresses if they do not say how long they are, and nothing else.
        raw: The format of standard input where it is not encoded.
        decoder: For a file, as in `read_clip`.
        backoff: For a live source.

    Raises:
        VideoNotFoundError: No file of that name.
        VideoDecodeError: It cannot be opened, or gives no picture.
        MissingExtraError: `decoder` is "pyav" and the extra [av] is not installed.
    """
    backoff = backoff or Backoff()
    name = str(source)
    if name == STANDARD_INPUT:
        if raw is not None:
            return RawSource(sys.stdin.buffer, raw, live=bool(live))
        return DecoderSource(_open_standard_input(), "standard input", live=bool(live))
    if name.isdecimal():
        return CaptureSource(
            partial(_open_camera, int(name)), f"camera {name}", live=live is not False, backoff=backoff
        )
    if "://" in name:
        return CaptureSource(partial(_open_address, name, backoff.timeout), name, live=live, backoff=backoff)
    return DecoderSource(_open_file(name, decoder), name, live=bool(live))


class DecoderSource:
    """A file, or encoded standard input."""

    def __init__(self, decoder: VideoDecoder, name: str, *, live: bool = False) -> None:
        self.live = live
        self.fps: float | None = decoder.fps or _ASSUMED_FPS
        self._decoder = decoder
        self._name = name
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Moment]:
        """The frames with the file's own times, or, where it has none, evenly."""
        last = -math.inf
        try:
            while not self._closed.is_set() and self._decoder.grab():
                t = self._decoder.time / 1e3
                # False where the file does not say (NaN), or says the same again.
                last = t if t > last else max(last, -1 / self._rate) + 1 / self._rate
                yield Moment(last, self._decoder.retrieve)
            if last == -math.inf and not self._closed.is_set():
                msg = (
                    f"{self._name}: {self._decoder.name} decodes no picture of codec {self._decoder.codec}: "
                    "pip install 'xclip-onnx[av]', or convert it to MPEG-TS (H.264)"
                )
                raise VideoDecodeError(msg)
        finally:
            self._decoder.close()

    @property
    def _rate(self) -> float:
        return self.fps or _ASSUMED_FPS

    def close(self) -> None:
        """End the iteration at its next step."""
        self._closed.set()


class RawSource:
    """Frames without a container; a last one that is cut short is left out."""

    def __init__(self, file: BinaryIO, raw: RawFormat, *, live: bool = False) -> None:
        self.live = live
        self.fps: float | None = raw.fps
        self._file = file
        self._raw = raw
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[Moment]:
        """The frames, evenly in time."""
        shape = (self._raw.height, self._raw.width, 3)
        for number in count():
            data = self._file.read(math.prod(shape))
            if len(data) < math.prod(shape) or self._closed.is_set():
                return
            rgb = np.frombuffer(data, np.uint8).reshape(shape)
            yield Moment(number / self._raw.fps, partial(cv2.cvtColor, rgb, cv2.COLOR_RGB2BGR))  # type: ignore[arg-type]

    def close(self) -> None:
        """End the iteration at its next step."""
        self._closed.set()


class CaptureSource:
    """A camera or an address. One that is live is sought again when it breaks.

    Times are the source's own, counted from its first frame, and go on behind a gap by as long as the gap took. Where
    it has none, as in multipart JPEG over HTTP, frames are timed by their arrival.
    """

    def __init__(
        self, open_capture: Callable[[], cv2.VideoCapture], name: str, *, live: bool | None, backoff: Backoff
    ) -> None:
        self._open_capture = open_capture
        self._name = name
        self._backoff = backoff
        self._closed = threading.Event()
        self._capture = open_capture()
        if not self._capture.isOpened():
            msg = f"{name} cannot be opened: check that it is there and sends video"
            raise VideoDecodeError(msg)
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self.fps: float | None = fps if 0 < fps < math.inf else None
        self.live: bool = self._capture.get(cv2.CAP_PROP_FRAME_COUNT) <= 0 if live is None else live

    def __iter__(self) -> Iterator[Moment]:
        """The frames, across all breaks."""
        before: _Clock | None = None
        waits = self._backoff.waits()
        while not self._closed.is_set():
            clock: _Clock | None = None
            while not self._closed.is_set() and self._grab():
                now = time.monotonic()
                after_gap = clock is None and before is not None
                if clock is None:
                    begin = before.after(now) if before else 0.0
                    interval = 1 / self.fps if self.fps else 0.0
                    clock = _Clock(begin, now, interval, trusted=self._has_own_clock())
                    waits = self._backoff.waits()
                yield Moment(clock.read(self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3, now), self._retrieve, after_gap)
            self._capture.release()
            before = clock or before
            if before is None:
                msg = f"{self._name} opens and sends no picture: check that it sends video"
                raise VideoDecodeError(msg)
            if not self.live or self._closed.is_set():
                return
            self._reconnect(next(waits), time.monotonic() - before.last_arrived)

    def close(self) -> None:
        """End the iteration at its next step, or while it waits."""
        self._closed.set()

    def _grab(self) -> bool:
        patience = time.monotonic() + 1
        return any(self._capture.grab() for _ in range(_DAMAGED_PACKETS_IN_A_ROW) if time.monotonic() < patience)

    def _retrieve(self) -> NDArray[np.uint8]:
        ok, picture = self._capture.retrieve()
        if not ok:
            msg = f"a picture of {self._name} cannot be converted to BGR: let it send another format"
            raise VideoDecodeError(msg)
        return np.asarray(picture, np.uint8)

    def _has_own_clock(self) -> bool:
        jpeg = int(self._capture.get(cv2.CAP_PROP_FOURCC)) == cv2.VideoWriter.fourcc(*"MJPG")
        return not (jpeg and self._name.startswith("http"))

    def _reconnect(self, wait: float, missing: float) -> None:
        if missing > self._backoff.give_up:
            msg = f"{self._name} has sent nothing for {missing:.0f} s: check it, or wait longer with --give-up"
            raise VideoError(msg)
        logger.warning("%s broke: trying again in %.1f s", self._name, wait)
        if not self._closed.wait(wait):
            self._capture = self._open_capture()


class _Clock:
    """Times of the frames of one connection, the first at `begin`, by the source's clock if it runs.

    FFmpeg does not know when the first picture of an RTSP stream is shown, and OpenCV makes the time of the second one
    of that: a first time that comes twice is counted back by `interval`, one that comes again is of no clock.
    """

    def __init__(self, begin: float, arrived: float, interval: float, *, trusted: bool) -> None:
        self._begin = self._last = begin
        self._first_arrived = self.last_arrived = arrived
        self._interval = interval
        self._read = 0
        self._first = self._zero = 0.0
        self._runs = None if trusted else False
        """None while that is not known."""

    def read(self, t: float, arrived: float) -> float:
        """The time of the next frame, which the source shows at `t` and which arrived at `arrived`, seconds."""
        if self._read == 0:
            self._first = self._zero = t
        elif self._read == 1 and t == self._first:
            self._zero -= self._interval
        elif self._runs is None:
            self._runs = t > self._first
        self._read += 1
        self._last = self._begin + (arrived - self._first_arrived if self._runs is False else t - self._zero)
        self.last_arrived = arrived
        return self._last

    def after(self, arrived: float) -> float:
        """The time of a frame that arrived at `arrived` over another connection.

        The last frames of this one may have been held back until it broke, hence the first counts, too.
        """
        return max(self._last + arrived - self.last_arrived, self._begin + arrived - self._first_arrived)


def _open_camera(number: int) -> cv2.VideoCapture:
    return cv2.VideoCapture(number)


def _open_address(address: str, timeout: float) -> cv2.VideoCapture:
    require_utf8(address)
    limit = round(timeout * 1e3)
    options = {
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC: limit,
        cv2.CAP_PROP_READ_TIMEOUT_MSEC: limit,
        cv2.CAP_PROP_N_THREADS: LIVE_THREADS,
    }
    capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG, [number for pair in options.items() for number in pair])
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 1)  # OpenCV 4.11 does not by itself.
    return capture


def _open_standard_input() -> VideoDecoder:
    try:
        return OpenCVDecoder("pipe:0")
    except VideoDecodeError:
        name = "standard input"
        raise cannot_open(name) from None


def _open_file(name: str, decoder: Decoder) -> VideoDecoder:
    """The first decoder that gives a picture, rewound."""
    if not Path(name).exists():
        msg = f"no such file: {name}: check the path"
        raise VideoNotFoundError(msg)
    if decoder == "pyav" or (decoder == "auto" and Path(name).is_file() and not _reads(name) and find_spec("av")):
        return PyAVDecoder(name)
    return OpenCVDecoder(name)


def _reads(name: str) -> bool:
    try:
        decoder = OpenCVDecoder(name)
    except VideoDecodeError:
        return False
    try:
        return decoder.grab()
    finally:
        decoder.close()
