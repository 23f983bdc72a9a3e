"""Decoding with PyAV, the optional extra [av]: every codec that FFmpeg knows, AV1 among them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from xclip_runtime.errors import MissingExtraError, NoFramesError, VideoDecodeError
from xclip_runtime.video.frame_reader import cannot_open
from xclip_runtime.video.index import FrameIndex, Packet, list_packets
from xclip_runtime.video.packets import HEAD, PacketReader
from xclip_runtime.video.threads import decoding_threads

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from numpy.typing import NDArray

    from xclip_runtime.video.index import Excerpt


class PyAVDecoder:
    """One pass over a video file through PyAV; see `decode.VideoDecoder`."""

    name = "pyav"
    stopped_short = False

    def __init__(self, path: str) -> None:
        try:
            import av  # noqa: PLC0415 - optional, and slow to import
        except ImportError:
            feature = "the PyAV decoder"
            raise MissingExtraError(feature, "av") from None
        self._av = av
        self._path = path
        self._container, self._stream = self._open()
        context = self._stream.codec_context
        context.thread_type = "AUTO"
        self.codec: str = context.codec.canonical_name
        self.pixels: int = context.width * context.height
        context.thread_count = decoding_threads(self.codec, self.pixels)
        self.expected: int = self._stream.frames or self._estimate()
        rate = self._stream.guessed_rate
        self.fps = float(rate) if rate else None
        self._start: int = self._stream.start_time or 0
        self._tick = float(self._stream.time_base) * 1e3
        self._picture: Any = None
        self._pictures = self._decode(self._packets())

    def grab(self) -> bool:
        """Decode the next picture; False at the end."""
        self._picture = next(self._pictures, None)
        return self._picture is not None

    @property
    def time(self) -> float:
        """When the last picture is shown, milliseconds; NaN where the file does not say."""
        return self._milliseconds(self._picture.pts)

    def retrieve(self) -> NDArray[np.uint8]:
        """The picture of the last `grab`: uint8 BGR (H, W, 3), upright."""
        try:
            # The interpolation of OpenCV, so that both decoders give the same pixels.
            picture = self._picture.reformat(format="bgr24", interpolation="BICUBIC").to_ndarray()
        except (self._av.error.FFmpegError, ValueError) as error:
            msg = f"a picture of {self._path} cannot be converted to BGR ({error}): convert the file to MP4 (H.264)"
            raise VideoDecodeError(msg) from None
        turns = round(self._picture.rotation / 90) % 4
        return cast("NDArray[np.uint8]", np.rot90(picture, turns) if turns else picture)

    def scan(self, patience: float = math.inf) -> FrameIndex | None:
        """List the pictures without decoding them, or None where that cannot be trusted or will not help."""
        packets = list_packets(self._listed(), patience)
        return None if packets is None else FrameIndex.from_packets(packets)

    def _listed(self) -> Iterator[Packet]:
        reader = PacketReader(self.codec, self._length_size())
        container, stream = self._open()
        with container:
            for packet in self._packets(container, stream):
                if not packet.size:
                    continue
                head = bytes(memoryview(packet)[:HEAD])
                time = self._milliseconds(packet.pts)
                if (packet.is_discard and time >= 0) or not reader.is_shown(head):
                    time = math.nan  # An edit list hides pictures other than the first, or the codec does.
                yield Packet(time, reader.role(head, key=packet.is_keyframe), packet.size)

    def excerpt(self, index: FrameIndex, excerpt: Excerpt, parts: int = 1) -> PyAVDecoder:  # noqa: ARG002
        """The pictures of some packets only: a decoder for each part of a video that is decoded in several."""
        decoder = self if parts == 1 else PyAVDecoder(self._path)
        decoder._stream.codec_context.thread_count = decoding_threads(self.codec, self.pixels, parts)  # noqa: SLF001
        decoder._pictures = decoder._decode_excerpt(excerpt)  # noqa: SLF001
        return decoder

    def close(self) -> None:
        """Free the file and the codec."""
        self._pictures.close()
        self._container.close()

    def _open(self) -> tuple[Any, Any]:
        try:
            container = self._av.open(self._path)
        except (self._av.error.FFmpegError, ValueError) as error:
            raise cannot_open(self._path) from error
        if not container.streams.video:
            container.close()
            msg = f"{self._path} has no picture track: pass a video, not a sound file"
            raise NoFramesError(msg)
        stream = container.streams.video[0]
        if stream.codec_context is None:
            container.close()
            msg = f"{self._path} is in a codec that FFmpeg does not know: convert it to MP4 (H.264)"
            raise VideoDecodeError(msg)
        return container, stream

    def _length_size(self) -> int:
        """Bytes of the length before each unit of H.264 and HEVC; 0 where start codes part them."""
        # ISO/IEC 14496-15 5.3.3.1 and 8.3.3.1.
        extradata = self._stream.codec_context.extradata or b""
        place = {"h264": 4, "hevc": 21}.get(self.codec, len(extradata))
        return (extradata[place] & 3) + 1 if place < len(extradata) and extradata[0] == 1 else 0

    def _estimate(self) -> int:
        if self._container.format.name == "mpeg":
            return 0  # The times of an MPEG program stream often give one frame too few.
        rate, duration = self._stream.guessed_rate, self._container.duration
        return round(rate * duration / 1_000_000) if rate and duration and duration > 0 else 0

    def _milliseconds(self, pts: int | None) -> float:
        return math.nan if pts is None else (pts - self._start) * self._tick

    def _packets(self, container: Any = None, stream: Any = None) -> Iterator[Any]:
        try:
            yield from (container or self._container).demux(stream or self._stream)
        except (self._av.error.FFmpegError, IndexError):
            # The file ends in the middle of a packet, or damage looks like a new track, for which PyAV has no number.
            return

    def _decode(self, packets: Iterator[Any]) -> Generator[Any]:
        for packet in packets:
            yield from self._decode_packet(packet)

    def _decode_excerpt(self, excerpt: Excerpt) -> Generator[Any]:
        context = self._stream.codec_context
        wanted = set(excerpt.packets.tolist())
        for place, packet in enumerate(packet for packet in self._packets() if packet.size):
            if place in excerpt.starts and place > excerpt.packets[0]:
                yield from self._decode_packet(None)
                context.flush_buffers()
            if place in wanted:
                yield from self._decode_packet(packet)
        yield from self._decode_packet(None)

    def _decode_packet(self, packet: Any) -> Iterator[Any]:
        """The pictures that a packet completes; None is the end."""
        try:
            yield from self._stream.codec_context.decode(packet)
        except self._av.error.FFmpegError:
            return  # A damaged packet costs its own picture only.
