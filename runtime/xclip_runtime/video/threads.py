"""How many threads a decoder gets; FFmpeg and OpenCV by themselves look at the whole machine, not at a container."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from xclip_runtime.util.cpus import available_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator

LIVE_THREADS = 4
"""Threads to decode what cannot be opened again once its codec is known. Each holds a picture back: OpenCV's own
choice, one a core, would be seconds late on a large server."""

_MOST_PARTS = 4
# Of the pictures that parts decode at once, all together one of 4K: each part holds six of its own, and there a second
# part saves only a tenth of the time.
_PIXELS_AT_ONCE = 3840 * 2160
# Each may hold a picture of its own: without a limit, a large server would need gigabytes for a 4K video.
_MOST = 16
# Codecs of which excerpts gain from one thread more than CPUs: each decodes a picture, and one of them always waits to
# hand its own over, for packets come late. In the others, and in order, the change of threads costs more.
_WITH_WAITING_THREADS = ("h264", "hevc", "vp9", "av1")
# Pixels of a picture below which it is decoded sooner than it is handed from one thread to another.
_SMALL = {"h264": 120_000, "hevc": 80_000, "vp8": 50_000, "vp9": 80_000, "av1": 50_000}
_SMALL_OF_OTHERS = 250_000


_reading: list[None] = []
"""An item for each video that is being read, in any thread."""


@contextmanager
def reading() -> Iterator[None]:
    """While a video is read, it has its share of the CPUs."""
    _reading.append(None)
    try:
        yield
    finally:
        _reading.pop()


def reads_alone() -> bool:
    """Whether no more than one video is being read, so that CPUs may be free beside its decoder."""
    return len(_reading) < 2


def decoding_parts(pixels: int) -> int:
    """Parts to decode at once of a video that can be entered at several places: threads within share less well.

    Args:
        pixels: Of a picture.
    """
    return max(min(available_cpus(), _MOST_PARTS, _PIXELS_AT_ONCE // max(pixels, 1)), 1) if reads_alone() else 1


def decoding_threads(codec: str, pixels: int, parts: int | None = None) -> int:
    """Threads to decode a codec with pictures of so many pixels, beside the other videos that are being read.

    Args:
        codec: FFmpeg's name.
        pixels: Of a picture.
        parts: Excerpts of the video that are decoded at once, and share the CPUs; None to decode it in order.
    """
    cpus = max(available_cpus() // max(parts or 1, len(_reading), 1), 1)
    waiting = parts is not None and codec in _WITH_WAITING_THREADS
    return min(cpus + waiting, _MOST) if cpus > 1 and _worth_sharing(codec, pixels) else 1


def _worth_sharing(codec: str, pixels: int) -> bool:
    return pixels >= _SMALL.get(codec, _SMALL_OF_OTHERS)
