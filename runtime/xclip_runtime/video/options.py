"""Options for reading a file."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

from xclip_runtime.util.arguments import check_numbers

if TYPE_CHECKING:
    from xclip_runtime.video.threads import ThreadPolicy

Decoder = Literal["auto", "pyav"]


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """Part of a file to read, and manner of reading."""

    start: float = 0.0
    """Seconds from the first frame."""
    end: float | None = None
    """Seconds; None for the end of the video."""
    track: int | None = None
    """Number among the video tracks, from 0; None for FFmpeg's best, cover art and thumbnails left out."""
    square_pixels: bool = False
    """Stretch frames by their sample aspect ratio, as players do."""
    max_pixels: int | None = None
    """Largest width times height of any frame; None for any."""
    max_duration: float | None = None
    """Longest duration by the container, seconds; None for any."""
    time_limit: float | None = 600.0
    """Seconds after which reading one file is given up, even where a decoder hangs; None for no limit."""
    decoder: Decoder = "auto"
    """Both are PyAV, which is FFmpeg."""
    policy: ThreadPolicy | None = None
    """Sizes from which threads and parts pay off; None for measured ones."""

    def __post_init__(self) -> None:
        check_numbers(start=self.start, end=self.end, time_limit=self.time_limit)
        if not self.start >= 0 or (self.end is not None and not self.end > self.start):
            message = f"start is {self.start} s and end is {self.end} s: give 0 <= start < end"
            raise ValueError(message)
        decoder: str = self.decoder
        if decoder not in get_args(Decoder):
            unknown = f"unknown decoder {decoder!r}: use one of {', '.join(get_args(Decoder))}"
            raise ValueError("OpenCV no longer reads videos: use auto or pyav" if decoder == "opencv" else unknown)
