"""How many threads a decoder gets; FFmpeg and OpenCV by themselves look at the whole machine, not at a container."""

from __future__ import annotations

from xclip_runtime.cpus import available_cpus

# Each holds a picture of its own: without a limit, a large server would need gigabytes for a 4K video.
_MOST = 16


def slice_threads() -> int:
    """Threads that share each picture: one a CPU."""
    return min(available_cpus(), _MOST)


def frame_threads() -> int:
    """Threads that decode a picture each: one more than CPUs, since one always waits to hand its picture over."""
    cpus = available_cpus()
    return min(cpus + 1, _MOST) if cpus > 1 else 1
