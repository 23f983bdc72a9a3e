"""Sources of frames with their times: cameras, addresses, files, standard input."""

from __future__ import annotations

import logging
import math
import re
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import av
import numpy as np

from xclip_runtime.errors import VideoDecodeError, VideoError
from xclip_runtime.util.addresses import is_address, without_passwords
from xclip_runtime.util.inputs import path_of
from xclip_runtime.util.pickling import NotPicklable
from xclip_runtime.video.container import open_input, open_standard_input
from xclip_runtime.video.frame_reader import ASSUMED_FPS
from xclip_runtime.video.options import ReadOptions
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.threads import ThreadPolicy

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from numpy.typing import NDArray

    from xclip_runtime.video.decoder import Frame, VideoDecoder
    from xclip_runtime.video.options import Decoder

logger = logging.getLogger(__name__)

LIVE_THREADS = 4
"""Threads to decode a live source. Each holds a frame back: one a core would be seconds late on a large server."""

STANDARD_INPUT = "-"
_STANDARD_INPUT_NAME = "standard input"
_ACCEPTED = 'the number of a camera, an address, a path, or "-" for standard input'
# RTSP over UDP, FFmpeg's own choice, loses packets where the network is busy.
_ADDRESS_OPTIONS = {"rtsp_transport": "tcp"}
# Frames at the start of a stream whose times FFmpeg may lack; a source that lacks more has no clock.
_FRAMES_WITHOUT_TIME = 8
# Error of the duration in a container, seconds.
_DURATION_MARGIN = 1.0
# FFmpeg's input format and file name for cameras, by platform.
_CAMERAS = {
    "linux": ("v4l2", "/dev/video{}"),
    "darwin": ("avfoundation", "{}:none"),
}


class StreamFrame(NamedTuple):
    """Frame of a source, not yet converted."""

    time: float
    """Presentation time, seconds."""
    to_rgb: Callable[[], NDArray[np.uint8]]
    """Convert to uint8 RGB (H, W, 3)."""
    after_gap: bool = False
    """True where the source broke and came back before this frame."""


class FrameSource(Protocol):
    """Something to iterate over once; one that is not live may also have a `duration`, seconds, or None."""

    @property
    def live(self) -> bool:
        """True where frames are lost when no one takes them."""

    @property
    def fps(self) -> float | None:
        """Frames a second, if known."""

    def __iter__(self) -> Iterator[StreamFrame]:
        """Iterate over the frames; their times increase."""

    def close(self) -> None:
        """End the iteration at its next step; any thread may call this."""


@dataclass(frozen=True)
class Backoff:
    """Retry policy for a live source that broke."""

    first: float = 0.5
    """Seconds before the first attempt."""
    longest: float = 30.0
    """Seconds between attempts, which double up to this."""
    reconnect_timeout: float = math.inf
    """Seconds without a frame after which the stream ends in an error."""
    timeout: float = 10.0
    """Seconds after which a source that neither sends nor closes counts as broken."""

    def waits(self) -> Iterator[float]:
        """Yield the seconds to wait before each attempt."""
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
            message = f"raw frames of {self.width}x{self.height} at {self.fps} a second: all must be above 0"
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> RawFormat:
        """Read WIDTHxHEIGHT@FPS, such as 640x480@25."""
        match = re.fullmatch(r"(\d{1,5})x(\d{1,5})@(\d+(?:\.\d+)?)", text)
        if match is None:
            message = f"{text!r} is not a raw format: use WIDTHxHEIGHT@FPS, such as 640x480@25"
            raise ValueError(message)
        return cls(int(match[1]), int(match[2]), float(match[3]))


def earliest_end(source: FrameSource) -> float:
    """Return the seconds after its first frame before which a source does not end, as far as its container is right."""
    if source.live:
        return math.inf
    return max(0.0, (getattr(source, "duration", None) or 0.0) - _DURATION_MARGIN)


def open_source(
    source: str | int | os.PathLike[str],
    *,
    live: bool | None = None,
    raw: RawFormat | None = None,
    decoder: Decoder = "auto",
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
        VideoTypeError: ``source`` is none of these.
        VideoNotFoundError: No file of that name.
        VideoDecodeError: It cannot be opened, or gives no frame.
        ValueError: `decoder` is neither "auto" nor "pyav".
    """
    backoff = backoff or Backoff()
    name = str(source) if isinstance(source, int) else path_of(source, _ACCEPTED)
    options = ReadOptions(decoder=decoder)
    if name == STANDARD_INPUT:
        if raw is not None:
            return RawSource(sys.stdin.buffer, raw, live=bool(live))
        return DecoderSource(
            PyAVDecoder(_STANDARD_INPUT_NAME, open_container=open_standard_input), _STANDARD_INPUT_NAME, live=bool(live)
        )
    if name.isdecimal():
        return LiveSource(partial(_open_camera, int(name)), f"camera {name}", live=live is not False, backoff=backoff)
    if is_address(name):
        opened = partial(_open_address, name, backoff.timeout)
        return LiveSource(opened, without_passwords(name), live=live, backoff=backoff)
    return DecoderSource(PyAVDecoder(name, options), name, live=bool(live))


class _Source(NotPicklable):
    _instead = "send the name, and open it there with open_source"


class DecoderSource(_Source):
    """A file, or encoded standard input."""

    def __init__(self, decoder: VideoDecoder, name: str, *, live: bool = False) -> None:
        self.live = live
        self.fps: float | None = decoder.fps or ASSUMED_FPS
        self.duration = decoder.duration
        self._decoder = decoder
        self._name = name
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[StreamFrame]:
        """Iterate over the frames with the file's own times, or, where it has none, evenly."""
        last = -math.inf
        interval = 1 / (self.fps or ASSUMED_FPS)
        try:
            for frame in self._decoder.decode():
                if self._closed.is_set():
                    return
                t = frame.time / 1e3
                # False if the time is missing (NaN) or repeated.
                last = t if t > last else max(last, -interval) + interval
                yield StreamFrame(last, frame.to_rgb)
            if last == -math.inf and not self._closed.is_set():
                raise self._silent()
        finally:
            self._decoder.close()

    def _silent(self) -> VideoError:
        if self._name == _STANDARD_INPUT_NAME and self._decoder.header_frame_count:
            message = (
                f"{self._name} is an MP4 whose index comes at the end, and a pipe does not go back: "
                "give the file itself, or pipe what ffmpeg makes of it with -c copy -movflags +frag_keyframe+empty_moov"
            )
        else:
            message = f"{self._name}: no frame of codec {self._decoder.codec} can be decoded: convert it to MP4 (H.264)"
        return VideoDecodeError(message)

    def close(self) -> None:
        """End the iteration at its next step."""
        self._closed.set()


class RawSource(_Source):
    """Frames without a container; a last one that is cut short is left out."""

    def __init__(self, file: BinaryIO, raw: RawFormat, *, live: bool = False) -> None:
        self.live = live
        self.fps: float | None = raw.fps
        self._file = file
        self._raw = raw
        self._closed = threading.Event()

    def __iter__(self) -> Iterator[StreamFrame]:
        """Iterate over the frames, evenly in time."""
        shape = (self._raw.height, self._raw.width, 3)
        for number in count():
            data = self._file.read(math.prod(shape))
            if len(data) < math.prod(shape) or self._closed.is_set():
                return
            rgb = np.frombuffer(data, np.uint8).reshape(shape)
            yield StreamFrame(number / self._raw.fps, partial(np.asarray, rgb))

    def close(self) -> None:
        """End the iteration at its next step."""
        self._closed.set()


class LiveSource(_Source):
    """A camera or an address; live ones are opened again when they break.

    Times are the source's own, counted from its first frame, and go on behind a gap by as long as the gap took. Where
    it has none, as in multipart JPEG over HTTP, frames are timed by their arrival.
    """

    def __init__(self, connect: Callable[[], PyAVDecoder], name: str, *, live: bool | None, backoff: Backoff) -> None:
        self._connect = connect
        self._name = name
        self._backoff = backoff
        self._closed = threading.Event()
        self._connection: PyAVDecoder | None = connect()
        self.fps: float | None = self._connection.fps
        self.duration = self._connection.duration
        self.live: bool = self._connection.duration is None if live is None else live

    def __iter__(self) -> Iterator[StreamFrame]:
        """Iterate over the frames, across all breaks."""
        before: StreamClock | None = None
        waits = self._backoff.waits()
        while not self._closed.is_set():
            clock: StreamClock | None = None
            for frame in self._frames():
                now = time.monotonic()
                after_gap = clock is None and before is not None
                if clock is None:
                    begin = before.after(now) if before else 0.0
                    clock = StreamClock(begin, now, 1 / self.fps if self.fps else 0.0, trusted=self._has_own_clock())
                    waits = self._backoff.waits()
                yield StreamFrame(clock.read(frame.time / 1e3, now), frame.to_rgb, after_gap)
            before = clock or before
            if self._closed.is_set():
                return
            if before is None:
                message = f"{self._name} opens but sends no frames: check that it sends video"
                raise VideoDecodeError(message)
            if not self.live:
                return
            self._reconnect(next(waits), time.monotonic() - before.last_arrived)

    def close(self) -> None:
        """End the iteration at its next step, or while it waits."""
        self._closed.set()

    def _frames(self) -> Iterator[Frame]:
        """Iterate over the frames of one connection."""
        if self._connection is None:
            return
        try:
            for frame in self._connection.decode():
                if self._closed.is_set():
                    return
                yield frame
        finally:
            self._connection.close()

    def _has_own_clock(self) -> bool:
        jpeg = self._connection is not None and self._connection.codec == "mjpeg"
        return not (jpeg and self._name.startswith("http"))

    def _reconnect(self, wait: float, missing: float) -> None:
        if missing > self._backoff.reconnect_timeout:
            message = f"{self._name} has sent nothing for {missing:.0f} s: check it, or raise --reconnect-timeout"
            raise VideoError(message)
        logger.warning("%s broke: trying again in %.1f s", self._name, wait)
        self._connection = None
        if not self._closed.wait(wait):
            with suppress(VideoError):
                self._connection = self._connect()


class StreamClock:
    """Times of the frames of one connection, the first at `begin`, by the source's clock if it runs.

    FFmpeg does not know when the first frames of an RTSP stream are shown: they are counted back by `interval` from the
    first time that is known.
    """

    def __init__(self, begin: float, arrived: float, interval: float, *, trusted: bool) -> None:
        self._begin = self._last = begin
        self._first_arrived = self.last_arrived = arrived
        self._interval = interval
        self._read = 0
        self._first = self._zero = math.nan
        self._runs = None if trusted else False
        """None while that is not known."""

    def read(self, t: float, arrived: float) -> float:
        """Return the time of the next frame, which arrived at `arrived` and is shown at `t`, seconds, or NaN."""
        elapsed = arrived - self._first_arrived
        if math.isnan(self._first):
            self._first, self._zero = t, t - self._read * self._interval
            own = self._read * self._interval
        else:
            if self._runs is None and not math.isnan(t):
                self._runs = t > self._first
            own = self._last - self._begin + self._interval if math.isnan(t) else t - self._zero
        self._read += 1
        unknown = math.isnan(self._first) and self._read > _FRAMES_WITHOUT_TIME
        self._last = self._begin + (elapsed if self._runs is False or unknown else own)
        self.last_arrived = arrived
        return self._last

    def after(self, arrived: float) -> float:
        """Return the time of a frame that arrived at `arrived` over another connection.

        The last frames of this one may have been held back until it broke, hence the first counts, too.
        """
        return max(self._last + arrived - self.last_arrived, self._begin + arrived - self._first_arrived)


def _open_camera(number: int) -> PyAVDecoder:
    form, device = _CAMERAS.get(sys.platform, ("dshow", "video={}"))
    if form not in av.formats_available and not any(form in known.split(",") for known in av.formats_available):
        message = f"PyAV was built without {form}, which reads cameras: install its wheel, or stream an address"
        raise VideoDecodeError(message)
    if form == "dshow":
        names = [found.name for found in av.enumerate_input_devices(form) if "video" in found.media_types]
        device = device.format(names[number] if number < len(names) else number)
    return _connect(f"camera {number}", partial(open_input, device.format(number), options={}, form=form))


def _open_address(address: str, timeout: float) -> PyAVDecoder:
    return _connect(without_passwords(address), partial(open_input, address, options=_ADDRESS_OPTIONS, timeout=timeout))


def _connect(name: str, opened: Callable[..., Any]) -> PyAVDecoder:
    options = ReadOptions(policy=ThreadPolicy(max_threads=LIVE_THREADS))
    try:
        return PyAVDecoder(name, options, lambda _: opened(name=name))
    except VideoDecodeError:
        message = f"{name} cannot be opened: check that it is there and sends video"
        raise VideoDecodeError(message) from None
