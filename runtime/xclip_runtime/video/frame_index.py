"""Frames of a video by its packets, and the packets to decode for some of them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray


class Packet(NamedTuple):
    """Packet as the container describes it; `discard` if it is decoded, but an edit list hides its frame."""

    pts: int | None
    dts: int | None
    keyframe: bool
    discard: bool
    size: int


@dataclass
class Span:
    """Packets from `start` to before `stop`: from a keyframe to the last of the wanted `frames` that depend on it."""

    start: int
    stop: int
    frames: list[int]


@dataclass(frozen=True)
class FrameIndex:
    """Frames of a video, in the order in which they are shown."""

    packets: Sequence[Packet]
    """In the order of the file."""
    places: NDArray[np.int64]
    """Packet of each frame."""
    times: NDArray[np.float64]
    """Presentation time of each frame, milliseconds, strictly increasing: frames are told apart by it."""

    @classmethod
    def from_packets(cls, packets: Sequence[Packet], tick: float, *, reorders: bool = False) -> FrameIndex | None:
        """Sort packets, given in the order of the file, by the time at which their frames are shown.

        Args:
            packets: All packets of the track.
            tick: Unit of their times, milliseconds.
            reorders: The codec has B-frames. Increasing pts then mean that the container has none, as AVI, and that
                FFmpeg made them up.

        Returns:
            None where times are missing, repeated or made up, or where frames come before the first keyframe.
        """
        shown = np.array([place for place, packet in enumerate(packets) if not packet.discard], np.int64)
        times = [packet.pts for packet in packets if not packet.discard]
        if not times or None in times or not packets[0].keyframe:
            return None
        pts = np.array(times, np.int64)
        order = np.argsort(pts, kind="stable")
        repeated, made_up = np.any(np.diff(pts[order]) == 0), reorders and np.all(np.diff(pts) > 0)
        if repeated or made_up or (shown[0] == 0 and order[0] > 0):
            return None
        return cls(packets, shown[order], np.asarray(pts[order] * tick, np.float64))

    def __len__(self) -> int:
        return self.places.size

    def spans(self, frames: Iterable[int]) -> list[Span]:
        """Find the packets to decode for some frames."""
        spans: list[Span] = []
        for start, place, frame in sorted((self._seek(frame), int(self.places[frame]), frame) for frame in set(frames)):
            if spans and start < spans[-1].stop:
                spans[-1].frames.append(frame)
                spans[-1].stop = max(spans[-1].stop, place + 1)
            else:
                spans.append(Span(start, place + 1, [frame]))
        for span in spans:
            span.frames.sort()
        return spans

    def share(self, spans: Iterable[Span]) -> float:
        """Estimate the work of decoding spans, as a part of decoding the whole video."""
        return float(sum(self._work[span.stop] - self._work[span.start] for span in spans))

    def split(self, spans: Sequence[Span], most: int) -> list[list[Span]]:
        """Split spans into at most `most` parts of about equal work."""
        work = np.array([self.share([span]) for span in spans])
        middles = (np.cumsum(work) - work / 2) / (work.sum() or 1)
        parts: list[list[Span]] = [[] for _ in range(most)]
        for span, middle in zip(spans, middles.tolist(), strict=True):
            parts[min(int(middle * most), most - 1)].append(span)
        return [part for part in parts if part]

    def expected(self, span: Span) -> NDArray[np.int64]:
        """List the frames of a span that do not depend on packets before it, sorted."""
        frames = self.frames_of[span.start : span.stop]
        first = self.frames_of[span.start]
        return np.sort(frames[frames >= max(first, 0)])

    @cached_property
    def frames_of(self) -> NDArray[np.int64]:
        """Frame of each packet; -1 where it is hidden."""
        frames = np.full(len(self.packets), -1, np.int64)
        frames[self.places] = np.arange(len(self))
        return frames

    def _seek(self, frame: int) -> int:
        """Find the packet at which to begin decoding for a frame."""
        place = self.places[frame]
        before = self._keyframes[: np.searchsorted(self._keyframes, place, side="right")]
        # Frames that are stored behind a keyframe and shown before it may depend on what comes before both.
        before = before[self.frames_of[before] <= frame]
        return int(before[-1])

    @cached_property
    def _keyframes(self) -> NDArray[np.int64]:
        return np.flatnonzero([packet.keyframe for packet in self.packets])

    @cached_property
    def _work(self) -> NDArray[np.float64]:
        """Estimated work before each packet: half of it goes with the packets, half with their bytes."""
        sizes = np.array([packet.size for packet in self.packets], np.float64)
        work = (1 / sizes.size + sizes / max(sizes.sum(), 1)) / 2
        return np.concatenate([[0.0], np.cumsum(work)])
