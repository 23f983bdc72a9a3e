"""Videos to measure readers with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """Video to encode: moving noise-like texture, `seconds` long at 30 frames a second, repeated `times`."""

    name: str
    codec: str
    width: int
    height: int
    seconds: float
    gop: int
    times: int = 1
    pix_fmt: str = "yuv420p"
    scene: float = 0
    """Seconds between scene cuts; 0 for none."""
    bits: float = 4
    """Bits a second and pixel."""
    b_frames: bool = True

    def encode(self, folder: Path) -> Path:
        """Encode the video once; longer ones repeat its packets, as a stream copy does."""
        path = folder / self.name
        if path.exists():
            return path
        options = {"libx265": {"preset": "ultrafast", "x265-params": "log-level=none"}}
        options |= {"libx264": {"preset": "veryfast"}}
        options |= {codec: {"deadline": "realtime", "cpu-used": "8"} for codec in ("libvpx", "libvpx-vp9")}
        once = path if self.times == 1 else folder / f"once-{self.name}"
        with av.open(str(once), "w") as container:
            stream: Any = container.add_stream(self.codec, rate=30, options=options.get(self.codec, {}))
            stream.width, stream.height, stream.pix_fmt = self.width, self.height, self.pix_fmt
            stream.codec_context.gop_size = self.gop
            if not self.b_frames:
                stream.codec_context.max_b_frames = 0
            stream.bit_rate = round(self.width * self.height * self.bits)
            for rgb in _texture(self.width, self.height, round(self.seconds * 30), round(self.scene * 30)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, "rgb24")))
            container.mux(stream.encode())
        if self.times > 1:
            _repeat(once, path, self.times)
            once.unlink()
        return path


SHORT = [
    Sample("320x240 h264 3 s.mp4", "libx264", 320, 240, 3, 12),
    Sample("640x272 h264 10 s.mp4", "libx264", 640, 272, 10, 60),
    Sample("640x360 vp9 10 s.webm", "libvpx-vp9", 640, 360, 10, 128),
    Sample("640x360 hevc 10 s.mp4", "libx265", 640, 360, 10, 60),
    Sample("640x360 mpeg4 10 s.mp4", "mpeg4", 640, 360, 10, 12),
    Sample("640x360 mjpeg 10 s.avi", "mjpeg", 640, 360, 10, 1, pix_fmt="yuvj420p"),
    Sample("640x360 h264 10 s.ts", "libx264", 640, 360, 10, 60),
    Sample("640x360 mpeg2 10 s.ts", "mpeg2video", 640, 360, 10, 12),
    Sample("640x360 mpeg2 10 s.mpg", "mpeg2video", 640, 360, 10, 12),
    Sample("640x360 mpeg4 10 s.avi", "mpeg4", 640, 360, 10, 12),
    Sample("640x360 vp8 10 s.webm", "libvpx", 640, 360, 10, 128),
    Sample("1080p h264 10 s.mp4", "libx264", 1920, 1080, 10, 60),
    Sample("640x360 h264 5 s, gop 250.mp4", "libx264", 640, 360, 5, 250),
    # No frame of these can be skipped: each depends on the one before.
    Sample("320x240 vp9 5 s, 1 key.webm", "libvpx-vp9", 320, 240, 5, 1000),
    Sample("640x360 h264 5 s, 1 key.mp4", "libx264", 640, 360, 5, 1000, b_frames=False),
    Sample("720p h264 5 s, 1 key.mkv", "libx264", 1280, 720, 5, 1000, b_frames=False),
    Sample("720p h264 5 s, 1 key.ts", "libx264", 1280, 720, 5, 1000, b_frames=False),
]
LONG = [
    Sample("720p h264 10 min gop 30.mp4", "libx264", 1280, 720, 20, 30, times=30),
    Sample("720p h264 10 min gop 60.mp4", "libx264", 1280, 720, 20, 60, times=30),
    Sample("720p h264 10 min gop 250.mp4", "libx264", 1280, 720, 20, 250, times=30),
    Sample("720p h264 10 min scenes.mp4", "libx264", 1280, 720, 20, 250, times=30, scene=3.3),
]
MEMORY = [
    Sample("4k h264 2 s.mp4", "libx264", 3840, 2160, 2, 1000, bits=0.1),
    Sample("4k h264 2 h.mp4", "libx264", 3840, 2160, 20, 250, times=360, bits=0.1),
]


def _texture(width: int, height: int, frames: int, scene: int) -> Any:
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 24, (height * 2, width * 2, 3), np.uint8)
    for number in range(frames):
        if number % (scene or frames) == 0:
            blocks = rng.integers(0, 256, (height // 16 + 40, width // 16 + 40, 3), np.uint8)
            ground = cv2.resize(blocks, (width + 320, height + 320))
        x, y = int(160 + 150 * np.sin(number / 40)), int(160 + 150 * np.cos(number / 55))
        v, u = rng.integers(0, height), rng.integers(0, width)
        yield cv2.add(np.ascontiguousarray(ground[y : y + height, x : x + width]), grain[v : v + height, u : u + width])


def _repeat(source: Path, target: Path, times: int) -> None:
    with av.open(str(target), "w") as output:
        stream: Any = None
        offset = 0
        for _ in range(times):
            with av.open(str(source)) as container:
                track = container.streams.video[0]
                stream = stream or output.add_stream_from_template(track)
                end = offset
                for packet in container.demux(track):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, offset + packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + offset, packet.dts + offset
                    packet.stream = stream
                    output.mux(packet)
                offset = end
