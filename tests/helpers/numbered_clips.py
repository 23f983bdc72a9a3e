"""Small video clips whose frames carry their own number, and the way to read it back."""

from __future__ import annotations

import fractions
import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

GRID = 4
# Corners of the painted square, clockwise from the top left: only upright does it read so.
CORNERS = ((220, 40, 40), (40, 220, 40), (40, 40, 220), (230, 230, 40))


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """uint8 RGB (H, W, 3): the number as 4 x 4 black or white blocks within a coloured frame, on a moving ground."""
    ground = (np.add.outer(np.arange(height), np.arange(width)) // 8 + number) % 64 + 96
    frame = np.repeat(ground.astype(np.uint8)[..., None], 3, axis=2)
    side = int(min(width, height) * 0.8)
    top, left = (height - side) // 2, (width - side) // 2
    square = frame[top : top + side, left : left + side]
    half = side // 2
    for colour, rows, columns in zip(
        CORNERS,
        (slice(0, half), slice(0, half), slice(half, side), slice(half, side)),
        (slice(0, half), slice(half, side), slice(half, side), slice(0, half)),
        strict=True,
    ):
        square[rows, columns] = colour
    block = int(side * 0.7) // GRID
    first = (side - GRID * block) // 2
    for bit in range(GRID * GRID):
        row, column = first + bit // GRID * block, first + bit % GRID * block
        square[row : row + block, column : column + block] = 255 if number >> bit & 1 else 0
    return frame


def read_number(image: np.ndarray, *, cropped: bool) -> int:
    """The number in a frame; `cropped` when it went through the `videox` profile, which cuts the border off."""
    height, width = image.shape[:2]
    side = min(width, height) * 0.8 * (256 / 224 if cropped else 1)
    block = side * 0.7 / GRID
    number = 0
    for bit in range(GRID * GRID):
        row = height / 2 + (bit // GRID - GRID / 2 + 0.5) * block
        column = width / 2 + (bit % GRID - GRID / 2 + 0.5) * block
        reach = max(block / 5, 1)
        part = image[int(row - reach) : int(row + reach), int(column - reach) : int(column + reach)]
        number |= int(part.mean() > 128) << bit
    return number


def is_upright(image: np.ndarray) -> bool:
    """Return True if the corners of a frame, RGB, after `videox`, have the colours that `numbered_frame` put there."""
    size = image.shape[0]
    side = size * 0.8 * 256 / 224
    near, far = int(size / 2 - side * 0.43), int(size / 2 + side * 0.43)
    seen = [
        image[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1))
        for y, x in ((near, near), (near, far), (far, far), (far, near))
    ]
    return all(np.abs(colour - wanted).max() < 60 for colour, wanted in zip(seen, CORNERS, strict=True))


@dataclass(frozen=True)
class Recipe:
    """Encoding of one video."""

    name: str
    codec: str = "libx264"
    frames: int = 200
    size: tuple[int, int] = (160, 128)
    options: dict[str, str] = field(default_factory=dict)
    pix_fmt: str = "yuv420p"
    ticks: Callable[[int], int] | None = None
    """Time at which a frame is shown, in 1/600 s; the default is 30 frames a second, in a time base of 1/30 s."""
    muxing: dict[str, str] = field(default_factory=dict)
    rotation: int = 0
    """Degrees by which a player has to turn the stored frame, anticlockwise."""
    gop: int = 24
    shown: tuple[float, float] | None = None
    """Seconds at which the edit list of an MP4 begins and ends."""

    def encode(self, folder: Path) -> Path:
        """Write the clip, once."""
        path = folder / self.name
        if path.exists():
            return path
        width, height = self.size
        with av.open(str(path), "w", options=self.muxing) as container:
            stream = container.add_stream(self.codec, rate=30, options=self.options)
            stream.width, stream.height, stream.pix_fmt = width, height, self.pix_fmt
            stream.codec_context.gop_size = self.gop
            base = fractions.Fraction(1, 600 if self.ticks else 30)
            stream.codec_context.time_base = stream.time_base = base
            if self.rotation:
                stream.set_display_rotation(self.rotation)
            for number in range(self.frames):
                image = numbered_frame(number, *((height, width) if self.rotation % 180 else (width, height)))
                image = np.ascontiguousarray(np.rot90(image, -self.rotation // 90))
                frame = av.VideoFrame.from_ndarray(image, "rgb24")
                frame.pts, frame.time_base = self.ticks(number) if self.ticks else number, base
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        if self.shown:
            trim(path, *self.shown)
        return path


def trim(path: Path, begin: float, end: float) -> None:
    """Let the one entry of the edit list of an MP4, whose movie counts milliseconds, show a part of the frames."""
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 12
    length, start = struct.unpack_from(">ii", data, place)
    (scale,) = struct.unpack_from(">I", data, data.index(b"mdhd") + 16)
    assert length > 1000 * end
    struct.pack_into(">ii", data, place, round(1000 * (end - begin)), start + round(begin * scale))
    path.write_bytes(data)
