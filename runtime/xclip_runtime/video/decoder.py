"""Interface between reading frames of a video and the library that decodes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from xclip_runtime.video.frame_index import FrameIndex, Span


class Frame(NamedTuple):
    """A decoded frame."""

    time: float
    """Presentation time, milliseconds; NaN where the file does not say."""
    keyframe: bool
    """It depends on no other frame, says the codec."""
    corrupt: bool
    """The codec has concealed damage."""
    to_rgb: Callable[[], NDArray[np.uint8]]
    """Convert it: uint8 RGB (H, W, 3), upright. May be called later and in another thread, one frame at a time."""


class VideoDecoder(Protocol):
    """An open video file."""

    name: str
    codec: str
    fps: float | None
    width: int
    height: int
    duration: float | None
    """Seconds by the container, when it says."""
    header_frame_count: int
    """Frames by the container, less those that `scan` finds hidden; 0 when it does not say."""
    packet_count: int
    """Frames by the packets, once `scan` has read them."""

    damage: int
    """Packets and frames that `decode` has found damaged."""
    skips: bool
    """`get_frames_at` leaves out frames that are not wanted and that none depends on."""

    def scan(self, check_time: Callable[[], None]) -> FrameIndex | None:
        """Read all packets without decoding them; `check_time` is called now and then, to raise when time is over.

        Returns None where the packets do not identify the frames.
        """

    def decode(self) -> Generator[Frame]:
        """Decode all frames, in the order in which they are shown."""

    def get_frames_at(self, index: FrameIndex, spans: Sequence[Span], parts: int = 1) -> Generator[Frame]:
        """Decode the wanted frames of spans, in the order of the file, and those between that the codec does not skip.

        Ends at the first damage, for frames that are not wanted, hence not missed, may depend on it.
        May be called in several threads at once, for so many `parts` of the video.
        """

    def close(self) -> None:
        """Free the file and the codec."""
