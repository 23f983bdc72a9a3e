"""Threads to decode with; FFmpeg by itself looks at the whole machine, not at a container or at other videos."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from xclip_runtime.util.cpus import available_cpus, readers, reads_alone

if TYPE_CHECKING:
    from collections.abc import Mapping

# Codecs of which parts gain from one thread more than CPUs: one of them always waits to hand its frame over.
_WITH_WAITING_THREADS = ("h264", "hevc", "vp9", "av1")
_SMALL = {"h264": 120_000, "hevc": 80_000, "vp8": 50_000, "vp9": 80_000, "av1": 50_000}


@dataclass(frozen=True)
class ThreadPolicy:
    """Sizes from which threads and parts pay off, measured on two cores with benchmarks/decode.py."""

    cpus: int = field(default_factory=available_cpus)
    small: Mapping[str, int] = field(default_factory=lambda: _SMALL)
    """Pixels of a frame, by codec, below which it is decoded sooner than it is handed from one thread to another."""
    small_otherwise: int = 250_000
    max_threads: int = 16
    """Each may hold a frame of its own: without a limit, a large server would need gigabytes for a 4K video."""
    max_parts: int = 16
    pixels_at_once: int = 3840 * 2160
    """Of the frames that parts decode at once, all together: each part holds several of its own."""
    pixels_of_a_part: int = 3_000_000
    """Fixed cost of a part in decoded pixels: a thread, opening the file again and seeking."""

    def parts(self, pixels: int) -> int:
        """Return the number of parts to decode at once, by pixels of a frame: threads within a part scale worse."""
        return max(min(self.cpus, self.max_parts, self.pixels_at_once // max(pixels, 1)), 1) if reads_alone() else 1

    def threads(self, codec: str, pixels: int, parts: int | None = None) -> int:
        """Return the number of threads of one decoder, beside those of the other videos that are being read.

        Args:
            codec: FFmpeg's name.
            pixels: Of a frame.
            parts: Decoders that share the CPUs for this video; None where it is decoded in order.
        """
        cpus = max(self.cpus // max(parts or 1, readers(), 1), 1)
        waiting = parts is not None and codec in _WITH_WAITING_THREADS
        worth_it = cpus > 1 and pixels >= self.small.get(codec, self.small_otherwise)
        return min(cpus + waiting, self.max_threads) if worth_it else 1
