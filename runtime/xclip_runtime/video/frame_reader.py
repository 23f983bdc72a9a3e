"""Reads the wanted frames of one video: only the packets that they depend on, or all in order."""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from contextlib import AbstractContextManager, closing, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

import numpy as np

from xclip_runtime.errors import NoFramesError, VideoDecodeError, VideoError, VideoTimeoutError
from xclip_runtime.util.cpus import reading, reads_alone
from xclip_runtime.util.deadline import together
from xclip_runtime.video.frame_buffer import FrameBuffer
from xclip_runtime.video.threads import ThreadPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from xclip_runtime.video.decoder import VideoDecoder
    from xclip_runtime.video.frame_index import FrameIndex, Span
    from xclip_runtime.video.options import ReadOptions
    from xclip_runtime.video.sampling import Sampling

Method = Literal["sequential", "selective"]

# Upper bound on remaining work for selective decoding to pay off.
_WORTH_SELECTING = 0.95
# The same for parts, which share the CPUs better than threads: two save 0.2 to 0.35 of the time, even as 2 : 3.
_WORTH_SPLITTING = 0.85
_SAVED_BY_PARTS = 0.3
# Seconds that the last frame may be shown.
_DURATION_OF_A_FRAME = 1.0

ASSUMED_FPS = 30.0
"""For a file that says neither when its frames are shown nor how many there are a second."""


@dataclass(frozen=True)
class Clip:
    """Preprocessed frames of one video, and facts about their reading."""

    frames: NDArray[np.uint8]
    """uint8 RGB (T, size, size, 3); from `read_views` (V, T, size, size, 3)."""
    indices: tuple[int, ...]
    """Numbers of the T frames, from 0 in the whole video; from `read_views` positions x T, position by position."""
    decoded: int
    """Distinct frames that were kept."""
    total: int
    """Frames in the video, or in the range from `start` to `end`."""
    decode_ms: float
    """Time spent opening and decoding, milliseconds."""
    prepare_ms: float
    """Time that decoding waited for preprocessing, milliseconds, on average of the parts that were decoded at once."""
    decoder: str
    """"pyav", or "array" for frames that were in memory."""
    codec: str
    """FFmpeg's name of the codec."""
    fps: float | None
    """Frames per second by the container, when it says."""
    method: Method
    """Decoding of all frames in order, or only of those that the sampled ones depend on."""
    notes: tuple[str, ...] = ()
    """Irregularities, such as a wrong frame count in the container."""


class FrameReader:
    """Reads frames of one video; the arguments are those of `read.read_clip`, but for the name that messages quote."""

    def __init__(
        self,
        name: str,
        count: int,
        sampling: Sampling,
        prepare: Callable[[NDArray[np.uint8]], NDArray[np.uint8]],
        *,
        options: ReadOptions,
        open_decoder: Callable[[], VideoDecoder],
    ) -> None:
        if count < 1:
            message = f"{count} frames are asked for: ask for at least 1"
            raise ValueError(message)
        self._name = name
        self._count = count
        self._sampling = sampling
        self._prepare = prepare
        self._options = options
        self._policy = options.policy or ThreadPolicy()
        self._open_decoder = open_decoder
        self._begun = time.perf_counter()
        self._buffer = FrameBuffer(prepare)
        self._indices: list[int] = []
        self._in_range = 0
        self._notes: list[str] = []
        self._parts = 1
        self._concealed = 0

    def read(self) -> Clip:
        """Read the frames; raises what `read.read_clip` says."""
        method: Method = "sequential"
        with reading(), closing(self._open_decoder()) as decoder:
            index = decoder.scan(self._check_time)
            parts = [] if index is None else self._plan(decoder, index)
            if index is None or not parts:
                self._notes += [] if index else ["the packets do not identify the frames: all were decoded in order"]
                self._read_in_order(decoder)
            elif self._read_parts(decoder, index, parts):
                method = "selective"
                self._compare(decoder, index.times)
            else:
                self._notes.append("the packets do not hold the frames that the file says: read from the start instead")
                self._buffer, self._parts = FrameBuffer(self._prepare), 1
                self._read_in_order(decoder)
            if self._concealed:
                self._notes.append(f"damaged: {self._concealed} of the frames are concealed")
            elif decoder.damage:
                self._notes.append(f"damaged in {decoder.damage} places: frames that depend on these may be wrong")
        frames = [self._buffer.frames[number] for number in self._indices]
        if len({frame.shape for frame in frames}) > 1:
            message = f"the frames of {self._name} differ in size: give a transform that brings them to one"
            raise VideoError(message)
        waited = self._buffer.waited_ms / self._parts
        return Clip(
            frames=np.stack(frames),
            indices=tuple(self._indices),
            decoded=len(set(self._indices)),
            total=self._in_range,
            decode_ms=(time.perf_counter() - self._begun) * 1e3 - waited,
            prepare_ms=waited,
            decoder=decoder.name,
            codec=decoder.codec,
            fps=decoder.fps,
            method=method,
            notes=tuple(self._notes),
        )

    def _check_time(self) -> None:
        limit = self._options.time_limit
        if limit is not None and time.perf_counter() - self._begun > limit:
            raise self.timeout()

    def timeout(self) -> VideoTimeoutError:
        """Make the error for a read that is over its time limit."""
        taken = f"takes longer than {self._options.time_limit:g} s to read: raise the time limit or cut the video"
        return VideoTimeoutError(f"{self._name} {taken}")

    def _plan(self, decoder: VideoDecoder, index: FrameIndex) -> list[list[Span]]:
        """Choose the packets to decode, in parts that are decoded at once; none where all in order take no longer."""
        self._indices, self._in_range = self._select(index.times, decoder.fps)
        # The first frame and the last belong to the proof that the index is right.
        spans = index.spans({*self._indices, 0, len(index) - 1})
        whole, pixels = index.share(spans), decoder.width * decoder.height
        most = min(self._policy.parts(pixels), int(whole * len(index) * pixels / self._policy.pixels_of_a_part))
        parts = index.split(spans, max(most, 1))
        longest = max(index.share(part) for part in parts) * len(parts)
        if len(parts) > 1 and longest * (1 - _SAVED_BY_PARTS) < min(whole, _WORTH_SPLITTING):
            return parts
        return [spans] if decoder.skips or whole <= _WORTH_SELECTING else []

    def _select(self, times: NDArray[np.float64], fps: float | None) -> tuple[list[int], int]:
        """Choose frames by when each is shown, milliseconds, or by `fps` where that says nothing.

        Return the frames to read, and how many there are in the range.
        """
        seconds, start, end = (times - times[0]) / 1e3, self._options.start, self._options.end
        if not np.all(np.diff(seconds) > 0):
            seconds = np.arange(times.size) / (fps or ASSUMED_FPS)
        # Half a millisecond is the rounding of timestamps in Matroska.
        first = int(np.searchsorted(seconds, start - 5e-4))
        last = times.size if end is None else int(np.searchsorted(seconds, end - 5e-4))
        if first == last:
            until = "" if end is None else f" to {end:g} s"
            message = f"{self._name} has no frame from {start:g} s{until}: its last is at {seconds[-1]:.2f} s"
            raise VideoError(message)
        return (first + self._sampling(seconds[first:last], self._count)).tolist(), last - first

    def _read_in_order(self, decoder: VideoDecoder) -> None:
        """Keep the wanted frames of one pass, for which their number is a guess, or of a second one if it was wrong."""
        guess = np.arange(max(decoder.packet_count, 1), dtype=np.float64) * (1e3 / (decoder.fps or ASSUMED_FPS))
        wanted: set[int] = set()
        with suppress(VideoError):  # The video may hold a frame of the range that the guess lacks.
            wanted.update(self._select(guess, decoder.fps)[0])
        times = self._pass(decoder, wanted)
        if not times:
            raise self._silent(decoder)
        self._compare(decoder, np.array(times))
        self._indices, self._in_range = self._select(np.array(times), decoder.fps)
        kept = self._buffer.frames
        if missing := set(self._indices).difference(kept):
            self._pass(decoder, missing, stop=max(missing))
        if not kept:
            raise self._silent(decoder)
        if lost := set(self._indices).difference(kept):
            # Which damaged frames a decoder with several threads drops is a matter of chance.
            self._notes.append(f"damaged: {len(lost)} frames did not come again, the nearest that did stand in")
            self._indices = [min(kept, key=lambda frame: abs(frame - index)) for index in self._indices]

    def _pass(self, decoder: VideoDecoder, wanted: set[int], stop: float = math.inf) -> list[float]:
        """Keep the wanted frames up to frame `stop`, and return when each frame on the way is shown."""
        times: list[float] = []
        with self._helped(), closing(decoder.decode()) as frames:
            for number, frame in enumerate(frames):
                if number in wanted:
                    self._buffer.add(number, frame)
                    self._concealed += frame.corrupt
                times.append(frame.time)
                self._check_time()
                if number >= stop:
                    break
        return times

    def _read_parts(self, decoder: VideoDecoder, index: FrameIndex, parts: list[list[Span]]) -> bool:
        """Keep the wanted frames from parts that are decoded at once; False where the index was wrong."""
        failed = threading.Event()
        self._parts = len(parts)

        def read(part: list[Span]) -> bool:
            complete = False
            try:
                complete = self._read_part(decoder, index, part, failed)
            finally:
                if not complete:
                    failed.set()
            return complete

        with self._helped():
            return all(together([partial(read, part) for part in parts]))

    def _read_part(self, decoder: VideoDecoder, index: FrameIndex, part: list[Span], failed: threading.Event) -> bool:
        """Keep the wanted frames; False as soon as a frame comes that is not as the index says, or one is missing.

        All frames that depend on no packet left out are expected, so the numbers of the index are those of a full
        decode; where the codec skips frames, the wanted ones are.
        """
        wanted = set(self._indices)
        entries = {index.frames_of[span.start] for span in part}
        due = deque(frame for span in part for frame in (span.frames if decoder.skips else index.expected(span)))
        with closing(decoder.get_frames_at(index, part, self._parts)) as frames:
            for frame in frames:
                self._check_time()
                number = int(np.searchsorted(index.times, frame.time))
                if failed.is_set() or number == len(index) or index.times[number] != frame.time:
                    return False
                if frame.corrupt or (number in entries and not frame.keyframe):
                    return False
                if not due or number < due[0]:
                    continue  # Not needed: before the first frame of its span, or one that the codec did not skip.
                if number != due.popleft():
                    return False
                if number in wanted:
                    self._buffer.add(number, frame)
        return not due

    def _helped(self) -> AbstractContextManager[None]:
        spare = self._policy.cpus > 1 and self._parts == 1 and reads_alone()
        return self._buffer.helped() if spare else nullcontext()

    def _compare(self, decoder: VideoDecoder, times: NDArray[np.float64]) -> None:
        """Note where the container promises another number of frames, or more seconds, than it holds."""
        if decoder.header_frame_count not in (0, times.size):
            self._notes.append(f"the container promises {decoder.header_frame_count} frames and holds {times.size}")
        seconds = (times[-1] - times[0]) / 1e3
        if decoder.duration and decoder.duration > 1.1 * seconds + _DURATION_OF_A_FRAME:
            self._notes.append(f"the container promises {decoder.duration:.1f} s and holds {seconds:.1f} s of video")

    def _silent(self, decoder: VideoDecoder) -> VideoError:
        """Make the error for a video that opens and then yields no frame."""
        count, advice = decoder.packet_count, "check that it plays, or convert it to MP4 (H.264)"
        if count == 0:
            return NoFramesError(f"{self._name} contains no video frames: {advice}")
        message = f"{self._name}: none of its {count} frames, of codec {decoder.codec}, can be decoded: {advice}"
        return VideoDecodeError(message)
