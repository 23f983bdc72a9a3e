"""Decoding with PyAV, which is FFmpeg."""

from __future__ import annotations

import copy
import math
from contextlib import closing, suppress
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Final

import av
from av.bitstream import BitStreamFilterContext

from xclip_runtime.errors import VideoDecodeError
from xclip_runtime.util.paths import identity
from xclip_runtime.util.plain_text import printable
from xclip_runtime.video.container import open_file, video_track
from xclip_runtime.video.conversion import FrameConverter, check_limits
from xclip_runtime.video.decoder import Frame
from xclip_runtime.video.frame_index import FrameIndex, Packet
from xclip_runtime.video.options import ReadOptions
from xclip_runtime.video.threads import ThreadPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from xclip_runtime.video.frame_index import Span

BYTES_TO_HOLD = 16 << 20
"""Videos of no more bytes are not read a second time after `PyAVDecoder.scan`."""
BYTES_TO_SEEK = 1 << 20
"""Gaps of more bytes are sought, not read, in formats that seek by an index, to the very packet."""
_SEEKABLE = ("mov", "matroska")
_PACKETS_BETWEEN_CHECKS = 500
_NEW: Final = "new_extradata"
# FFmpeg knows the types of the frames of these codecs, hence when they are shown, even if the container does not say.
_TIMED_BY_TYPE = ("mpeg1video", "mpeg2video", "mpeg4")
# FFmpeg knows of each frame of these codecs, before it decodes it, whether others depend on it. Of HEVC it knows so
# within a temporal layer only, yet gives no frame whose references are missing.
_WITH_NON_REFERENCE = ("h264", "hevc", "mpeg1video", "mpeg2video")


class PyAVDecoder:
    """An open video file, or whatever `open_container` opens by its name; see `decoder.VideoDecoder`."""

    name = "pyav"

    def __init__(
        self, path: str, options: ReadOptions | None = None, open_container: Callable[[str], Any] = open_file
    ) -> None:
        self._path = path
        self._name = printable(path)
        self._options = options or ReadOptions()
        self._policy = self._options.policy or ThreadPolicy()
        self._open_container = open_container
        self._held: list[Any] | None = None
        """All packets, where `scan` has read them and they are few."""
        self._parts: int | None = None
        self._container: Any = None
        self._file: tuple[int, int] | None = None
        self.damage = 0
        self._open()
        self.codec: str = self._context.codec.canonical_name
        self.skips = self.codec in _WITH_NON_REFERENCE
        self.width: int = self._context.width
        self.height: int = self._context.height
        rate, duration = self._stream.guessed_rate, self._stream.container.duration
        self.fps = float(rate) if rate else None
        self.duration: float | None = duration / av.time_base if duration and duration > 0 else None
        check_limits(self._name, self._options, self.width, self.height, self.duration)
        self.header_frame_count: int = self._stream.frames
        self.packet_count = 0

    def scan(self, check_time: Callable[[], None]) -> FrameIndex | None:
        """Read all packets without decoding them; None where they do not identify the frames."""
        packets: list[Packet] = []
        held: list[Any] = []
        size = 0
        parameters = _Parameters(self._stream)
        for packet in self._demux():
            parameters.add(packet)
            packets.append(Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.size))
            size += packet.size + 500  # The object of a packet takes about 500 bytes, too.
            if size <= BYTES_TO_HOLD:
                held.append(packet)
            if len(packets) % _PACKETS_BETWEEN_CHECKS == 0:
                check_time()
        self._held = held if size <= BYTES_TO_HOLD else None
        self.packet_count = sum(not packet.discard for packet in packets)
        self.header_frame_count = max(self.header_frame_count - len(packets) + self.packet_count, 0)
        if parameters.missed:
            return None
        reorders = self._context.has_b_frames and self.codec not in _TIMED_BY_TYPE
        return FrameIndex.from_packets(packets, self._tick, reorders=reorders)

    def decode(self) -> Generator[Frame]:
        """Decode all frames, in the order in which they are shown."""
        self._parts, self.damage = None, 0
        if self._context.is_open:
            self._open()
        for packet in self._from_start():
            self.damage += packet.is_corrupt
            yield from self._decode(packet)
        yield from self._decode(None)

    def get_frames_at(self, index: FrameIndex, spans: Sequence[Span], parts: int = 1) -> Generator[Frame]:
        """Decode the wanted frames of spans, and those on the way to them that the codec does not skip."""
        if parts == 1:
            yield from self._get_frames_at(index, spans, 1)
            return
        decoder = copy.copy(self)
        decoder._container = None  # noqa: SLF001 - that of this one stays open
        decoder._open()  # noqa: SLF001
        with closing(decoder):
            yield from decoder._get_frames_at(index, spans, parts)  # noqa: SLF001

    def close(self) -> None:
        """Free the file and the codec."""
        self._held = None
        self._container.close()

    def _get_frames_at(self, index: FrameIndex, spans: Sequence[Span], parts: int) -> Iterator[Frame]:
        self._parts = parts
        position, packets = self._seek(index, spans[0].start)
        for span in spans:
            if self._worth_seeking(index, position, span.start):
                position, packets = self._seek(index, span.start)
            wanted = {int(index.places[frame]) for frame in span.frames}
            part = islice(packets, span.start - position, span.stop - position)
            for place, packet in enumerate(part, span.start):
                self._context.skip_frame = "NONREF" if self.skips and place not in wanted else "DEFAULT"
                yield from self._decode(packet)
                if self.damage:
                    return
            yield from self._decode(None)
            self._context.flush_buffers()
            position = span.stop

    def _open(self) -> None:
        """Open the file, or open it again."""
        if self._container is not None:
            self._container.close()
        file = self._file or identity(self._path)
        self._container = self._open_container(self._path)
        try:
            self._file = identity(self._path)
            if self._file != file:
                message = f"{self._name} was replaced while it was being read: read it again"
                raise VideoDecodeError(message)
            self._stream = video_track(self._container, self._name, self._options.track)
        except BaseException:
            self._container.close()
            raise
        self._context = self._stream.codec_context
        self._tick = float(self._stream.time_base) * 1e3
        aspect = self._stream.sample_aspect_ratio if self._options.square_pixels else None
        self._convert = FrameConverter(self._name, self._options, aspect)
        self._at_start = True

    def _demux(self) -> Iterator[Any]:
        self._at_start = False
        try:
            yield from (packet for packet in self._container.demux(self._stream) if packet.size)
        except (av.error.FFmpegError, IndexError):
            # The file ends in the middle of a packet, or damage looks like a new track, for which PyAV has no number.
            self.damage += 1

    def _from_start(self) -> Iterator[Any]:
        if self._held is not None:
            return iter(self._held)
        if not self._at_start:
            self._open()
        return self._demux()

    def _seek(self, index: FrameIndex, target: int) -> tuple[int, Iterator[Any]]:
        """Go to a packet, by seeking where that pays, else to the start; return the place there and the packets."""
        sought = index.packets[target]
        if sought.dts is not None and self._worth_seeking(index, 0, target):
            self._container.seek(sought.dts, stream=self._stream)
            packets = self._demux()
            for packet in packets:
                if (packet.pts, packet.dts, packet.size) == (sought.pts, sought.dts, sought.size):
                    return target, chain([packet], packets)
                if packet.dts is None or packet.dts >= sought.dts:
                    break
        return 0, self._from_start()

    def _worth_seeking(self, index: FrameIndex, position: int, target: int) -> bool:
        if self._held is not None or self._container.format.name.partition(",")[0] not in _SEEKABLE:
            return False
        return sum(packet.size for packet in index.packets[position:target]) > BYTES_TO_SEEK

    def _decode(self, packet: Any) -> Iterator[Frame]:
        """Decode a packet; None gives the frames that the codec still holds."""
        if not self._context.is_open:
            self._context.thread_type = "AUTO"
            self._context.thread_count = self._policy.threads(self.codec, self.width * self.height, self._parts)
        try:
            for frame in self._context.decode(packet):
                self.damage += frame.is_corrupt
                time = math.nan if frame.pts is None else frame.pts * self._tick
                yield Frame(time, frame.key_frame, frame.is_corrupt, partial(self._convert, frame))
        except av.error.FFmpegError:
            self.damage += 1


class _Parameters:
    """Parameters of the codec, such as SPS and PPS, that come with packets; a span may begin behind those it needs."""

    def __init__(self, stream: Any) -> None:
        header, codec = bytes(stream.codec_context.extradata or b""), stream.codec_context.codec.canonical_name
        framed = header[:1] == b"\1" and codec in ("h264", "hevc", "vvc")
        self._header, self._extract, self._changed = header, None, False
        self._usual: set[bytes] = set()
        self.missed = False
        """A keyframe depends on parameters that came before it."""
        with suppress(av.error.FFmpegError, ValueError):  # A codec whose keyframes hold all that they need.
            chain = f"{codec}_mp4toannexb,extract_extradata" if framed else "extract_extradata"
            self._extract = BitStreamFilterContext(chain, stream)

    def add(self, packet: Any) -> None:
        """Look for parameters in a packet, and for a keyframe without any, or with the first again, behind others."""
        self.missed |= packet.has_sidedata(_NEW) and bytes(packet.get_sidedata(_NEW)) != self._header
        if packet.is_keyframe and self._extract is not None:
            with suppress(av.error.FFmpegError):  # Damaged: decoding will tell.
                found = [part for part in self._extract.filter(av.Packet(bytes(packet))) if part.has_sidedata(_NEW)]
                own = bytes(found[0].get_sidedata(_NEW)) if found else b""
                self._usual = self._usual or {b"", own}
                self.missed |= self._changed and own in self._usual
                self._changed |= own not in self._usual
