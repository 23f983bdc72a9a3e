"""How wanted frames are reached with any decoder: one pass through the video, or only the packets they depend on."""

from __future__ import annotations

import math
import threading
import time
from contextlib import closing, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from xclip_runtime.errors import NoFramesError, VideoDecodeError, VideoError, VideoTimeoutError
from xclip_runtime.util.deadline import together
from xclip_runtime.video.frame_buffer import KeptFrames, Preparer
from xclip_runtime.video.one_run import is_one_run
from xclip_runtime.video.threads import decoding_parts, reading, reads_alone

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.video.index import Excerpt, FrameIndex
    from xclip_runtime.video.sampling import Sampling

Method = Literal["sequential", "selective"]

# The part of the work that has to remain at most, by an estimate, for a list of the packets or parts to be worth it.
_WORTH_LISTING = 0.8
# The same once there is a list, for reading in order would have to begin anew.
_WORTH_SELECTING = 0.95
# Listing the packets and opening the file anew takes about as long as decoding so many pixels of a simple codec.
_PIXELS_OF_A_LISTING = 20_000_000
# What a pixel of a slow codec takes, in pixels of a simple one.
_SLOWNESS = 4
_SLOW = ("h264", "hevc", "vp8", "vp9", "av1")
# What decoding two parts of a video at once saves of the time that threads within it take: measured 0.2 to 0.35.
_SAVED_BY_PARTS = 0.3
# Each part to decode at once costs a thread, another opening of the file and its way to the part.
_PIXELS_OF_A_PART = 3_000_000
# Over four days at 30 a second: a container that promises more is damaged.
_MOST_FRAMES = 10_000_000
# Codecs in which single pictures can mostly be left out; in the others whole groups of them at most.
_WITH_DROPPABLE = ("h264", "hevc", "mjpeg", "mpeg1video", "mpeg2video", "mpeg4")
_USUAL_GROUP = 16
# Encoders begin a group after so many pictures at the latest, unless they are told otherwise: x264 after 250.
_LONGEST_USUAL_GROUP = 300

ASSUMED_FPS = 30.0
"""For a file that says neither when its pictures are shown nor how many there are a second."""


class Pictures(Protocol):
    """Pictures in the order in which they are shown."""

    def grab(self) -> bool:
        """Decode the next picture; False at the end."""

    @property
    def time(self) -> float:
        """When the last picture is shown, milliseconds; NaN where the file does not say."""

    def retrieve(self) -> NDArray[np.uint8]:
        """The picture of the last `grab`: uint8 BGR (H, W, 3), upright, overwritten by the next call."""

    def close(self) -> None:
        """Free the file and the codec."""


class VideoDecoder(Pictures, Protocol):
    """A video file opened for reading."""

    name: str
    codec: str
    fps: float | None
    pixels: int
    """Of one picture."""
    expected: int
    """Frames that the container promises; 0 when it does not say. Often an estimate, sometimes wrong; `scan` may find a
    better one."""

    @property
    def stopped_short(self) -> bool:
        """After the end: whether the decoder may have ended before the video did."""

    def scan(self, patience: float = math.inf) -> FrameIndex | None:
        """List the pictures without decoding them, or None where that cannot be trusted or will not help.

        Args:
            patience: Packets after which to give up where nothing might be left out, see `index.list_packets`.
        """

    def excerpt(self, index: FrameIndex, excerpt: Excerpt, parts: int = 1) -> Pictures:
        """The pictures of some packets only, before anything is grabbed; the decoder itself has none to give then.

        Excerpts of the parts of a video may be asked for and read in several threads.

        Args:
            index: What `scan` returned for this file.
            excerpt: The packets.
            parts: Excerpts of the video that are decoded at once, and share the CPUs.
        """


@dataclass(frozen=True)
class Request:
    """What to read from one file."""

    name: str
    """The path, as the messages quote it."""
    count: int
    """Frames to sample."""
    sampling: Sampling
    start: float
    """Seconds from the first frame."""
    end: float | None
    """Seconds; None for the end of the video."""
    time_limit: float | None
    """Seconds; None for no limit."""
    prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]]
    """From uint8 BGR (H, W, 3) to what is kept of a picture."""
    begun: float = field(default_factory=time.perf_counter)
    """When the time limit began to run."""

    def __post_init__(self) -> None:
        if self.count < 1:
            msg = f"{self.count} frames are asked for: ask for at least 1"
            raise ValueError(msg)
        if not self.start >= 0 or (self.end is not None and not self.end > self.start):
            msg = f"start is {self.start} s and end is {self.end} s: give 0 <= start < end"
            raise ValueError(msg)

    def select(self, times: NDArray[np.float64], fps: float | None) -> tuple[list[int], int]:
        """Choose frames.

        Args:
            times: When each frame of the video is shown, milliseconds.
            fps: Frames per second, used when `times` say nothing.

        Returns:
            The frames to read, and how many there are in the range.
        """
        seconds = (times - times[0]) / 1e3
        if not np.all(np.diff(seconds) > 0):
            seconds = np.arange(times.size) / (fps or ASSUMED_FPS)
        # Half a millisecond is the rounding of timestamps in Matroska.
        first = int(np.searchsorted(seconds, self.start - 5e-4))
        last = times.size if self.end is None else int(np.searchsorted(seconds, self.end - 5e-4))
        if first == last:
            until = "" if self.end is None else f" to {self.end:g} s"
            msg = f"{self.name} has no frame from {self.start:g} s{until}: its last is at {seconds[-1]:.2f} s"
            raise VideoError(msg)
        return (first + self.sampling(seconds[first:last], self.count)).tolist(), last - first

    def check_time(self) -> None:
        """Raise VideoTimeoutError when the time limit is over."""
        if self.time_limit is not None and time.perf_counter() - self.begun > self.time_limit:
            raise self.timeout()

    def timeout(self) -> VideoTimeoutError:
        """The error for a read that is over its time limit."""
        return VideoTimeoutError(
            f"{self.name} takes longer than {self.time_limit:g} s to read: raise the time limit or cut the video"
        )


class Reader:
    """Reads one request with one decoder."""

    def __init__(self, request: Request, open_decoder: Callable[[str], VideoDecoder]) -> None:
        self._request = request
        self._open_decoder = open_decoder
        self._kept = KeptFrames()
        self.indices: list[int] = []
        """The frames that were asked for."""
        self.in_range = 0
        """Frames from which they were chosen."""
        self.method: Method = "sequential"
        self.notes: list[str] = []
        self._preparers: list[Preparer] = []
        self._at_once = 1
        """Excerpts that are decoded at once."""
        self.stopped_short = False
        """Whether the decoder may have ended before the video did."""

    def read(self) -> VideoDecoder:
        """Read the frames.

        Returns:
            The decoder, closed; its constant attributes can be read.

        Raises:
            VideoError: And its subclasses, as `decode.read_clip` says.
        """
        with reading():
            return self._read()

    @property
    def frames(self) -> NDArray[np.uint8]:
        """uint8 (T, …): what was made of the frames `indices`, after `read`."""
        return self._kept.stacked(self.indices)

    @property
    def prepare_ms(self) -> float:
        """How long decoding waited for pictures to be prepared, milliseconds, on average of what was done at once."""
        return sum(preparer.waited_ms for preparer in self._preparers) / self._at_once

    def _read(self) -> VideoDecoder:
        with self._open() as decoder:
            index = self._scan(decoder)
            if index is None:
                self._read_in_order(decoder, _guess(decoder))
                return decoder
            self.indices, self.in_range = self._request.select(index.times, decoder.fps)
            excerpts = self._plan(index, decoder.pixels)
            if not excerpts:
                self._read_in_order(decoder, index.times)
                return decoder
            self._kept.expect(self.indices)
            if self._read_excerpts(decoder, index, excerpts):
                self.method = "selective"
                return decoder
            self.notes.append("the packets do not hold the pictures that the file says: read from the start instead")
        self._at_once = 1
        with self._open() as again:
            self._read_in_order(again, index.times)
        return again

    def _open(self) -> closing[VideoDecoder]:
        return closing(self._open_decoder(self._request.name))

    def _scan(self, decoder: VideoDecoder) -> FrameIndex | None:
        if not self._may_gain(decoder):
            return None
        patience = self._patience(decoder)
        if patience < math.inf and is_one_run(self._request.name, patience):
            return None
        return decoder.scan(patience)

    def _may_gain(self, decoder: VideoDecoder) -> bool:
        """Whether listing the packets can pay: the frame count is unknown, or there is much that may be left out."""
        expected = _credible(decoder.expected)
        wanted = self._request.count * (1 if decoder.codec in _WITH_DROPPABLE else _USUAL_GROUP)
        saved = (
            max(expected - wanted, expected * _SAVED_BY_PARTS if decoding_parts(decoder.pixels) > 1 else 0)
            * decoder.pixels
        )
        return expected == 0 or saved * (_SLOWNESS if decoder.codec in _SLOW else 1) > _PIXELS_OF_A_LISTING

    def _patience(self, decoder: VideoDecoder) -> float:
        """Packets after which a group is so long that neither leaving out its end nor dividing the video is worth it.

        That end, behind the last wanted frame of the group, is on average half the gap between two wanted frames.
        """
        guess = _guess(decoder)
        wanted: list[int] = []
        with suppress(VideoError):  # What the guess does not hold, the video may.
            wanted, _ = self._request.select(guess, decoder.fps)
        if not wanted or not _credible(decoder.expected):
            return math.inf
        gap = float(np.diff([0, *wanted, guess.size]).max())
        part = guess.size * _WORTH_LISTING / (1 - _SAVED_BY_PARTS) / 2 if decoding_parts(decoder.pixels) > 1 else 0
        return max(gap / (2 * (1 - _WORTH_LISTING)), min(part, _LONGEST_USUAL_GROUP))

    def _plan(self, index: FrameIndex, pixels: int) -> list[Excerpt]:
        """The packets to decode, in parts that are decoded at once; none where all in order take no longer."""
        # The first picture and the last, which none may follow, belong to the proof that the index is right.
        frames = {*self.indices, 0, len(index) - 1}
        whole = index.excerpt(frames)
        most = min(decoding_parts(pixels), int(whole.share * len(index) * pixels / _PIXELS_OF_A_PART))
        parts = [index.excerpt(part) for part in index.split(frames, max(most, 1))]
        longest = max(part.share for part in parts) * len(parts)
        if len(parts) > 1 and longest * (1 - _SAVED_BY_PARTS) < min(whole.share, _WORTH_LISTING):
            return parts
        return [whole] if whole.share <= _WORTH_SELECTING else []

    def _read_in_order(self, decoder: VideoDecoder, guess: NDArray[np.float64]) -> None:
        """One pass; `guess` is when the frames may be shown, milliseconds. A second one if it proves wrong."""
        wanted: set[int] = set()
        with suppress(VideoError):  # What the guess does not hold, the video may.
            wanted.update(self._request.select(guess, decoder.fps)[0])
        self._kept.expect(wanted)
        times = self._pass(decoder, wanted)
        if not times:
            raise _silent(self._request.name, decoder)
        self.stopped_short = decoder.stopped_short
        if len(times) != decoder.expected:
            self.notes.append(f"the container promises {decoder.expected} frames and holds {len(times)}")
        self.indices, self.in_range = self._request.select(np.array(times), decoder.fps)
        missing = {index for index in self.indices if index not in self._kept}
        if missing:
            with self._open() as again:
                self._pass(again, missing, stop=max(missing))
        if not self._kept:
            raise _silent(self._request.name, decoder)
        lost = {index for index in missing if index not in self._kept}
        if lost:
            # Which damaged pictures a decoder with several threads drops is a matter of chance.
            self.notes.append(f"damaged: {len(lost)} frames did not come again, the nearest that did stand in for them")
            self.indices = [self._kept.nearest(index) for index in self.indices]

    def _pass(self, decoder: VideoDecoder, wanted: set[int], stop: float = float("inf")) -> list[float]:
        """Keep the wanted frames up to frame `stop`, and return when each frame on the way is shown."""
        times: list[float] = []
        with self._preparer() as preparer:
            while len(times) <= stop and decoder.grab():
                if len(times) in wanted:
                    preparer.keep(len(times), decoder)
                times.append(decoder.time)
                self._request.check_time()
        return times

    def _read_excerpts(self, decoder: VideoDecoder, index: FrameIndex, excerpts: list[Excerpt]) -> bool:
        """Keep the wanted frames from excerpts that are decoded at once; False where the index was wrong."""
        failed = threading.Event()
        self._at_once = len(excerpts)

        def read(excerpt: Excerpt) -> bool:
            complete = False
            try:
                with closing(decoder.excerpt(index, excerpt, self._at_once)) as pictures:
                    complete = self._read_excerpt(pictures, index, excerpt, failed)
            finally:
                if not complete:
                    failed.set()
            return complete

        return all(together([partial(read, excerpt) for excerpt in excerpts]))

    def _read_excerpt(self, pictures: Pictures, index: FrameIndex, excerpt: Excerpt, failed: threading.Event) -> bool:
        """Keep the wanted frames; False as soon as another picture comes than the index says, or none.

        Every picture of the excerpt is expected at its time, so the numbers of the index are those of a full decode.
        """
        wanted = set(self.indices)
        optional = {float(index.times[number]) for number in excerpt.optional if number >= 0}
        with self._preparer() as preparer:
            for number in excerpt.shown:
                while (grabbed := pictures.grab()) and pictures.time in optional:
                    self._request.check_time()
                if not grabbed or pictures.time != index.times[number] or failed.is_set():
                    return False
                if number in wanted:
                    preparer.keep(number, pictures)
                self._request.check_time()
            return not pictures.grab()

    def _preparer(self) -> Preparer:
        def may_help() -> bool:
            return self._at_once == 1 and reads_alone()

        self._preparers.append(Preparer(self._request.prepare, self._kept, may_help))
        return self._preparers[-1]


def _guess(decoder: VideoDecoder) -> NDArray[np.float64]:
    """When the frames may be shown that the container promises, milliseconds."""
    return 1e3 / (decoder.fps or ASSUMED_FPS) * np.arange(max(_credible(decoder.expected), 1), dtype=np.float64)


def _credible(expected: int) -> int:
    return expected if expected <= _MOST_FRAMES else 0


def cannot_open(name: str) -> VideoDecodeError:
    """The error for a file that a decoder does not take for a video."""
    return VideoDecodeError(
        f"{name} cannot be opened as a video: it is damaged, cut short, or has no picture track; "
        "check that it plays, or convert it to MP4 (H.264)"
    )


def _silent(name: str, decoder: VideoDecoder) -> VideoError:
    """The error for a video that opens and then yields no picture."""
    if decoder.expected == 0:
        return NoFramesError(f"{name} holds no picture: check that it plays, or convert it to MP4 (H.264)")
    return VideoDecodeError(
        f"{name}: {decoder.name} decodes none of the {decoder.expected} frames that it promises in codec "
        f"{decoder.codec}: pip install 'xclip-onnx[av]' or convert it to MP4 (H.264)"
    )
