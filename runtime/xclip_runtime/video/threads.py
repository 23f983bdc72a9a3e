"""How many threads a decoder gets; FFmpeg and OpenCV by themselves look at the whole machine, not at a container."""

from __future__ import annotations

from xclip_runtime.cpus import available_cpus

LIVE_THREADS = 4
"""Threads to decode what cannot be opened again once its codec is known. Each holds a picture back: OpenCV's own
choice, one a core, would be seconds late on a large server."""

# Parts of a video that are decoded at once: each holds the pictures that others refer to, 12 MB a picture of 4K.
_MOST_PARTS = 4
# Each may hold a picture of its own: without a limit, a large server would need gigabytes for a 4K video.
_MOST = 16
# Codecs that gain from one thread more than CPUs: each decodes a picture, and one of them always waits to hand its own
# over. In the others the change of threads costs more.
_WITH_WAITING_THREADS = ("h264", "hevc", "vp9", "av1")
# Pixels of a picture below which it is decoded sooner than it is handed from one thread to another.
_SMALL = {"h264": 120_000, "hevc": 80_000, "vp8": 50_000, "vp9": 80_000, "av1": 50_000}
_SMALL_OF_OTHERS = 250_000


def decoding_parts() -> int:
    """Parts of a video to decode at once where it can be entered at several places: threads within share less well."""
    return min(available_cpus(), _MOST_PARTS)


def decoding_threads(codec: str, pixels: int, parts: int = 1) -> int:
    """Threads to decode a codec, by FFmpeg's name, with pictures of so many pixels.

    Args:
        codec: FFmpeg's name.
        pixels: Of a picture.
        parts: Of the video that are decoded at once, and share the CPUs.
    """
    cpus = max(available_cpus() // parts, 1)
    return min(cpus + (codec in _WITH_WAITING_THREADS), _MOST) if cpus > 1 and _worth_sharing(codec, pixels) else 1


def _worth_sharing(codec: str, pixels: int) -> bool:
    return pixels >= _SMALL.get(codec, _SMALL_OF_OTHERS)
