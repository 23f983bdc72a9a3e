"""Decoding with PyAV, which is FFmpeg."""

from __future__ import annotations

import math
from contextlib import closing, suppress
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import av

from xclip_runtime.video.container import open_file, picture_track
from xclip_runtime.video.conversion import FrameConverter, check_pixels
from xclip_runtime.video.decoder import Frame
from xclip_runtime.video.frame_index import FrameIndex, Packet
from xclip_runtime.video.threads import ThreadPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from xclip_runtime.video.frame_index import Span

# Files of no more bytes are not read a second time after `scan`.
BYTES_TO_HOLD = 16 << 20
_PACKETS_BETWEEN_CHECKS = 500
# Formats that seek by an index, to the very packet; it pays beyond so many bytes.
_SEEKABLE = ("mov", "matroska")
BYTES_TO_SEEK = 1 << 20
# FFmpeg knows of each frame of these codecs, before it decodes it, whether others depend on it. Of HEVC it knows so
# within a temporal layer only, yet gives no frame whose references are missing.
_WITH_NON_REFERENCE = ("h264", "hevc", "mpeg1video", "mpeg2video")


class PyAVDecoder:
    """An open video file; see `decoder.VideoDecoder`."""

    name = "pyav"

    def __init__(
        self,
        path: str,
        *,
        track: int | None = None,
        square_pixels: bool = False,
        max_pixels: int | None = None,
        policy: ThreadPolicy | None = None,
        open_container: Callable[[str], Any] = open_file,
    ) -> None:
        self._path = path
        self._open_container = open_container
        self._track = track
        self._policy = policy or ThreadPolicy()
        self._held: list[Any] | None = None
        self._used = False
        self._open()
        context = self._context = self._stream.codec_context
        self.codec: str = context.codec.canonical_name
        self.skips = self.codec in _WITH_NON_REFERENCE
        self.width: int = context.width
        self.height: int = context.height
        check_pixels(path, self.width, self.height, max_pixels)
        rate, duration = self._stream.guessed_rate, self._container.duration
        self.fps = float(rate) if rate else None
        self.duration: float | None = duration / av.time_base if duration and duration > 0 else None
        self.header_frame_count: int = self._stream.frames
        self.packet_count = 0
        aspect = self._stream.sample_aspect_ratio if square_pixels else None
        self._convert = FrameConverter(path, max_pixels, aspect)
        self._again = partial(
            PyAVDecoder, path, track=track, square_pixels=square_pixels, max_pixels=max_pixels, policy=policy
        )
        self._tick = float(self._stream.time_base) * 1e3

    def scan(self, check_time: Callable[[], None]) -> FrameIndex | None:
        """Read all packets without decoding them; None where they do not identify the frames."""
        packets: list[Packet] = []
        held: list[Any] = []
        size = 0
        for packet in self._demux():
            packets.append(Packet(packet.pts, packet.dts, packet.is_keyframe, packet.is_discard, packet.size))
            size += packet.size
            if size <= BYTES_TO_HOLD:
                held.append(packet)
            if len(packets) % _PACKETS_BETWEEN_CHECKS == 0:
                check_time()
        self._held = held if size <= BYTES_TO_HOLD else None
        self.packet_count = sum(not packet.discard for packet in packets)
        self.header_frame_count = max(self.header_frame_count - len(packets) + self.packet_count, 0)
        return FrameIndex.from_packets(packets, self._tick)

    def decode(self) -> Generator[Frame]:
        """Decode all frames, in the order in which they are shown."""
        self._set_threads(None)
        for packet in self._from_start():
            yield from self._decode(packet)
        yield from self._decode(None)

    def get_frames_at(self, index: FrameIndex, spans: Sequence[Span], parts: int = 1) -> Generator[Frame]:
        """Decode the wanted frames of spans, and those on the way to them that the codec does not skip."""
        if parts > 1:
            with closing(self._again()) as decoder:
                decoder._held = self._held  # noqa: SLF001
                yield from decoder._get_frames_at(index, spans, parts)  # noqa: SLF001
        else:
            yield from self._get_frames_at(index, spans, parts)

    def _get_frames_at(self, index: FrameIndex, spans: Sequence[Span], parts: int) -> Generator[Frame]:
        self._set_threads(parts)
        position, packets = self._packets_from(index, spans[0].start)
        for span in spans:
            if self._worth_seeking(index, position, span.start):
                position, packets = self._packets_from(index, span.start)
            packets_of_span = islice(packets, span.start - position, span.stop - position)
            position = span.stop
            wanted = {int(index.places[frame]) for frame in span.frames}
            for place, packet in enumerate(packets_of_span, span.start):
                self._context.skip_frame = "NONREF" if self.skips and place not in wanted else "DEFAULT"
                yield from self._decode(packet)
            yield from self._decode(None)
            self._context.flush_buffers()

    def close(self) -> None:
        """Free the file and the codec."""
        self._held = None
        self._container.close()

    def _open(self) -> None:
        self._container = self._open_container(self._path)
        try:
            self._stream = picture_track(self._container, self._path, self._track)
        except BaseException:
            self._container.close()
            raise

    def _set_threads(self, parts: int | None) -> None:
        if not self._context.is_open:
            self._context.thread_type = "AUTO"
            self._context.thread_count = self._policy.threads(self.codec, self.width * self.height, parts)

    def _demux(self) -> Iterator[Any]:
        self._used = True
        # The file ends in the middle of a packet, or damage looks like a new track, for which PyAV has no number.
        with suppress(av.error.FFmpegError, IndexError):
            yield from (packet for packet in self._container.demux(self._stream) if packet.size)

    def _from_start(self) -> Iterator[Any]:
        if self._held is not None:
            return iter(self._held)
        if self._used:
            self._container.close()
            self._open()
        return self._demux()

    def _worth_seeking(self, index: FrameIndex, position: int, target: int) -> bool:
        if self._held is not None or self._container.format.name.partition(",")[0] not in _SEEKABLE:
            return False
        return sum(packet.size for packet in index.packets[position:target]) > BYTES_TO_SEEK

    def _packets_from(self, index: FrameIndex, target: int) -> tuple[int, Iterator[Any]]:
        """Go to a packet, by seeking where that pays, else to the start.

        Returns:
            The place of the first packet, and the packets.
        """
        if not self._worth_seeking(index, 0, target):
            return 0, self._from_start()
        sought = index.packets[target]
        if sought.dts is not None:
            self._container.seek(sought.dts, stream=self._stream)
            packets = self._demux()
            for packet in packets:
                if (packet.pts, packet.dts, packet.size) == (sought.pts, sought.dts, sought.size):
                    return target, chain([packet], packets)
                if packet.dts is None or packet.dts >= sought.dts:
                    break
        return 0, self._from_start()

    def _decode(self, packet: Any) -> Iterator[Frame]:
        """Decode a packet; None gives the frames that the codec still holds."""
        # A damaged packet costs its own frame only.
        with suppress(av.error.FFmpegError):
            for frame in self._context.decode(packet):
                time = math.nan if frame.pts is None else frame.pts * self._tick
                yield Frame(time, partial(self._convert, frame))
