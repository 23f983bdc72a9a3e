"""How many threads a decoder gets; FFmpeg and OpenCV by themselves look at the whole machine, not at a container."""

from __future__ import annotations

from xclip_runtime.cpus import available_cpus

# Each may hold a picture of its own: without a limit, a large server would need gigabytes for a 4K video.
_MOST = 16
# Codecs that are slow enough to gain from one thread more than CPUs: each decodes a picture, and one of them always
# waits to hand its own over. In the others the change of threads costs more.
_SLOW = ("h264", "hevc", "vp9", "av1")


def decoding_threads(codec: str | None = None) -> int:
    """Threads to decode a codec, by FFmpeg's name, or a file whose codec is not known yet."""
    cpus = available_cpus()
    return min(cpus + (codec in _SLOW and cpus > 1), _MOST)
