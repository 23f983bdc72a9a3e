"""Video files of the kinds that people have, made small, and what a right reader makes of them.

The reference is `rgb_of`: arithmetic on the planes that PyAV's own full decode gives, by the equations of ITU-T H.273.
It shares no conversion with the reader, nor a buffer. `ffmpeg_frames` asks the ffmpeg command for the same.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
import pytest

from xclip_runtime.video import Clip, read_clip
from xclip_runtime.video.sampling import given

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

SIZE = (160, 128)
_BITS = 8
# Studio levels of a bar that is 0 or 1, far enough from 128 for any codec and any range.
_DARK, _BRIGHT = 40, 210


# Frames


def painted(number: int, width: int = SIZE[0], height: int = SIZE[1]) -> list[np.ndarray]:
    """The planes, uint8 4:2:0, of a frame whose number is read from eight bars in its lower half.

    The upper half is a pattern that moves from line to line, as a camera that films fields sees motion. Chroma is the
    same all over a frame, so that no way to upsample it is preferred, and another one in the next.
    """
    rows, columns = np.mgrid[0:height, 0:width]
    moment = 2 * number + rows % 2
    luma = (np.abs((columns + rows + 4 * moment) % 128 - 64) + 80).astype(np.uint8)
    for bit in range(_BITS):
        bar = slice(bit * width // _BITS, (bit + 1) * width // _BITS)
        luma[height // 2 :, bar] = _BRIGHT if number >> bit & 1 else _DARK
    half = ((height + 1) // 2, (width + 1) // 2)
    return [luma, *(np.full(half, 128 + (step * number) % 61 - 30, np.uint8) for step in (7, 11))]


def number_in(image: np.ndarray) -> int:
    """The number that `painted` put into a frame of any size, uint8 RGB (H, W, 3)."""
    height, width = image.shape[:2]
    bars = image[height * 5 // 8 : height * 7 // 8].mean((0, 2))
    centres = [(2 * bit + 1) * width // (2 * _BITS) for bit in range(_BITS)]
    return sum(int(bars[centre - 1 : centre + 2].mean() > 128) << bit for bit, centre in enumerate(centres))


def rgb_of(frame: av.VideoFrame) -> np.ndarray:
    """uint8 RGB (H, W, 3) of a decoded frame by the equations of ITU-T H.273 8.3; nothing said is BT.601, narrow."""
    name = frame.format.name
    if name.startswith(("rgb", "bgr", "gbr", "pal", "argb", "abgr", "mono")):
        return frame.to_ndarray(format="rgb24")
    if not name.startswith(("yuv", "gray")) or "yuyv" in name:
        frame = frame.reformat(format="yuv422p")
    depth = frame.format.components[0].bits
    full = name.startswith("yuvj") or frame.color_range == 2 or (name.startswith("gray") and frame.color_range == 0)
    planes = [_plane(plane, depth) for plane in frame.planes[:3]]
    unit = 1 << (depth - 8)
    peak = (1 << depth) - 1
    luma = planes[0] / peak if full else (planes[0] - 16 * unit) / (219 * unit)
    if len(planes) < 3:
        return _rounded(np.repeat(luma[..., None], 3, axis=2))
    blue, red = ((_upsampled(plane, luma.shape) - 128 * unit) / (peak if full else 224 * unit) for plane in planes[1:])
    kr, kb = {1: (0.2126, 0.0722), 4: (0.30, 0.11), 7: (0.212, 0.087), 9: (0.2627, 0.0593)}.get(
        frame.colorspace, (0.299, 0.114)
    )
    r = luma + 2 * (1 - kr) * red
    b = luma + 2 * (1 - kb) * blue
    g = (luma - kr * r - kb * b) / (1 - kr - kb)
    return _rounded(np.stack([r, g, b], axis=2))


def _plane(plane: Any, depth: int) -> np.ndarray:
    kind = np.dtype("<u2") if depth > 8 else np.dtype("u1")
    lines = np.frombuffer(plane, kind).reshape(plane.height, plane.line_size // kind.itemsize)
    return lines[:, : plane.width].astype(float)


def _upsampled(plane: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    down, across = (-(-whole // part) for whole, part in zip(shape, plane.shape, strict=True))
    return plane.repeat(down, 0).repeat(across, 1)[: shape[0], : shape[1]]


def _rounded(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image * 255), 0, 255).astype(np.uint8)


def turned(image: np.ndarray, matrix: Sequence[int]) -> np.ndarray:
    """A stored frame as a display matrix (a, b, c, d) of -1, 0 and 1 shows it; ISO/IEC 14496-12 6.2.2.

    The point (x, y) is shown at (a x + c y, b x + d y), moved into the first quadrant.
    """
    a, b, c, d = matrix
    if a:
        return image[:: d or 1, :: a or 1]
    return image.swapaxes(0, 1)[:: b or 1, :: c or 1]


# Encoding


def ffmpeg(*arguments: object, stdin: bytes = b"") -> bytes:
    """Run the ffmpeg command and return what it writes; skip where it is missing, but fail in CI, which installs it."""
    if shutil.which("ffmpeg") is None:
        message = "the ffmpeg command is not installed: apt-get install ffmpeg"
        pytest.fail(message) if os.environ.get("CI") else pytest.skip(message)
    command = ["ffmpeg", "-v", "error", "-nostdin", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def raw_film(frames: int, size: tuple[int, int] = SIZE, first: int = 0) -> bytes:
    """`painted` frames one after the other, as `FILM_INPUT` tells the ffmpeg command to read them."""
    return b"".join(plane.tobytes() for number in range(first, first + frames) for plane in painted(number, *size))


def film_input(size: tuple[int, int] = SIZE) -> list[str]:
    """Options of the ffmpeg command that take `raw_film` from standard input."""
    return ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-s", f"{size[0]}x{size[1]}", "-r", "25", "-i", "-"]


@dataclass(frozen=True)
class Part:
    """A stretch of a film that is coded in a way of its own."""

    size: tuple[int, int] = SIZE
    pix_fmt: str = "yuv420p"
    colour: tuple[int, int] = (2, 0)
    """Matrix and range, numbers of ITU-T H.273 and FFmpeg; nothing said by default."""
    options: tuple[tuple[str, str], ...] = ()


def encode(
    path: Path, codec: str = "libx264", part: Part | None = None, *, frames: int = 12, first: int = 0, gop: int = 12
) -> Path:
    """Encode `painted` frames with PyAV, from number `first` on."""
    part = part or Part()
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=dict(part.options))
        stream.width, stream.height, stream.pix_fmt = *part.size, part.pix_fmt
        context = stream.codec_context
        context.gop_size, context.colorspace, context.color_range = gop, *part.colour
        context.thread_count = 1
        for number in range(first, first + frames):
            frame = _coloured(number, part)
            frame.pts = number - first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def _coloured(number: int, part: Part) -> av.VideoFrame:
    """The planes as they are: only the layout follows the pixel format, not the levels."""
    frame = av.VideoFrame(*part.size, "yuv420p")
    for plane, values in zip(frame.planes, painted(number, *part.size), strict=True):
        lines = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
        lines[:, : plane.width] = values
    if part.pix_fmt != "yuv420p":
        frame = frame.reformat(format=part.pix_fmt)
    frame.colorspace, frame.color_range = part.colour
    return frame


def remux(source: Path, target: Path) -> Path:
    """Put the packets of the first video track of a file into another container."""
    return joined(target, [source])


def joined(target: Path, sources: Sequence[Path]) -> Path:
    """Put the packets of several files, one after the other, into one track, whatever they hold."""
    if sources[0].suffix == ".h264":  # Start codes, and no timestamps.
        target.write_bytes(b"".join(source.read_bytes() for source in sources))
        return target
    with av.open(str(sources[0])) as first, av.open(str(target), "w") as output:
        stream = output.add_stream_from_template(first.streams.video[0], opaque=True)
        begin = 0
        for source in sources:
            with av.open(str(source)) as container:
                track = container.streams.video[0]
                packets = [packet for packet in container.demux(track) if packet.size]
                step = round(1 / 25 / track.time_base)
                earliest = min(packet.pts for packet in packets)
                for packet in packets:
                    packet.pts, packet.dts = (begin + t - earliest for t in (packet.pts, packet.dts))
                    packet.stream = stream
                    output.mux(packet)
                begin += len(packets) * step
    return target


def with_matrix(source: Path, target: Path, matrix: Sequence[int]) -> Path:
    """A copy of an MP4 of one track with the display matrix (a, b, c, d)."""
    data = bytearray(source.read_bytes())
    place = data.index(b"tkhd") + 4 + 40
    a, b, c, d = (value * 0x10000 for value in matrix)
    for offset, value in zip((0, 4, 12, 16), (a, b, c, d), strict=True):
        data[place + offset : place + offset + 4] = value.to_bytes(4, "big", signed=True)
    target.write_bytes(data)
    return target


# References


@functools.lru_cache(maxsize=16)
def decoded(path: Path, track: int = 0) -> Sequence[np.ndarray]:
    """Every frame of PyAV's own full decode, as stored, uint8 RGB by `rgb_of`."""
    return [rgb_of(frame) for frame in _full_decode(path, track)]


def decoded_at(path: Path, indices: Iterable[int]) -> dict[int, np.ndarray]:
    """Some of the frames of `decoded`, by number."""
    wanted = set(indices)
    return {number: rgb_of(frame) for number, frame in enumerate(_full_decode(path, 0)) if number in wanted}


def _full_decode(path: Path, track: int) -> Iterator[av.VideoFrame]:
    with av.open(str(path)) as container:
        stream = container.streams.video[track]
        stream.thread_count = 1
        yield from container.decode(stream)


def ffmpeg_frames(*paths: Path, options: Sequence[str] = ()) -> list[list[np.ndarray]]:
    """Every frame of each file, as the ffmpeg command shows it, uint8 RGB.

    Full accuracy is asked for: without, FFmpeg 5 and 8 round differently, by up to 3 levels, and their builds with and
    without assembly do, too.
    """
    inputs = [argument for path in paths for argument in ("-i", path)]
    flags = ["-vsync", "passthrough", "-sws_flags", "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp", *options]
    with tempfile.TemporaryDirectory() as folder:
        targets = [Path(folder, f"{number}.ppm") for number in range(len(paths))]
        outputs = [
            argument
            for number, target in enumerate(targets)
            for argument in (
                "-map",
                f"{number}:v:0",
                *flags,
                "-c:v",
                "ppm",
                "-pix_fmt",
                "rgb24",
                "-f",
                "image2pipe",
                target,
            )
        ]
        ffmpeg(*inputs, *outputs)
        return [list(_ppm_frames(target.read_bytes())) for target in targets]


def _ppm_frames(data: bytes) -> Iterator[np.ndarray]:
    place = 0
    while place < len(data):
        header = data[place : place + 40].split(b"\n", 3)
        width, height = map(int, header[1].split())
        start = place + sum(map(len, header[:3])) + 3
        place = start + width * height * 3
        yield np.frombuffer(data[start:place], np.uint8).reshape(height, width, 3)


# The reader


class WholeFrames:
    """A transform that keeps whole frames of any size, for `read_clip` keeps squares of one size.

    With a `marker`, the frame that was handed over is overwritten once it is copied: a reader that fills its buffers
    only in part will show it.
    """

    def __init__(self, marker: int | None = None) -> None:
        self._marker = marker
        self._frames: list[np.ndarray] = []
        self._lock = threading.Lock()

    def __call__(self, image: np.ndarray) -> np.ndarray:
        copy = image.copy()
        if self._marker is not None and image.flags.writeable:
            image[...] = self._marker
        with self._lock:
            self._frames.append(copy)
            number = len(self._frames) - 1
        return np.array([[[number >> 16, number >> 8 & 255, number & 255]]], np.uint8)

    def of(self, clip: Clip) -> list[np.ndarray]:
        """The frames of a clip, uint8 RGB (H, W, 3)."""
        return [self._frames[int.from_bytes(ticket.tobytes(), "big")] for ticket in clip.frames]


def read_whole(path: Any, indices: Iterable[int], *, marker: int | None = None, **options: Any) -> list[np.ndarray]:
    """Frames of a file as the reader shows them, uint8 RGB (H, W, 3)."""
    return read_whole_clip(path, indices, marker=marker, **options)[0]


def read_whole_clip(
    path: Any, indices: Iterable[int], *, marker: int | None = None, **options: Any
) -> tuple[list[np.ndarray], Clip]:
    """The frames of `read_whole`, and the clip that says how they were read."""
    wanted = list(indices)
    whole = WholeFrames(marker)
    clip = read_clip(path, num_frames=len(wanted), transform=whole, sampling=given(wanted), **options)
    return whole.of(clip), clip


def assert_same_frames(seen: Sequence[np.ndarray], wanted: Sequence[np.ndarray], within: int = 3) -> None:
    """Each frame is as large as wanted, and each of its values within so many grey levels."""
    assert [image.shape for image in seen] == [image.shape for image in wanted]
    off = [int(np.abs(one.astype(int) - other).max()) for one, other in zip(seen, wanted, strict=True)]
    assert max(off) <= within, f"grey levels off, frame by frame: {off}"
