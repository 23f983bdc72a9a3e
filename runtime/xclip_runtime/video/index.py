"""Where the pictures and keyframes of a video are, learnt from its packets without decoding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

# What a seek costs beside the pictures that it decodes, in decoded pictures.
SEEK_COST = 3


@dataclass(frozen=True)
class FrameIndex:
    """The pictures of a video in the order in which they are shown."""

    times: NDArray[np.float64]
    """When each is shown, milliseconds, strictly increasing; the identity by which a seek is verified."""
    keys: NDArray[np.int64]
    """The numbers of those at which decoding can start, sorted; the first is 0."""
    reorder: int
    """Farthest distance between the stored and the shown place of a picture."""

    @classmethod
    def from_packets(cls, times: Sequence[float], keys: Sequence[bool]) -> FrameIndex | None:
        """Sort packets, given in stored order, by the time at which they are shown.

        Packets from before time 0 are those that an edit list hides: decoding needs them, no one sees them.

        Returns:
            None when the times are no identity (missing or repeated), or when nothing can be decoded at the start.
        """
        stored = np.array(times, np.float64)
        order = np.argsort(stored, kind="stable")
        shown = stored[order]
        hidden = int(np.searchsorted(shown, 0.0))
        starts = np.flatnonzero(np.asarray(keys)[order]) - hidden
        if hidden == shown.size or not np.all(np.diff(shown) > 0) or starts.size == 0 or starts[0] > 0:
            return None
        reorder = int(np.abs(order - np.arange(order.size)).max())
        return cls(shown[hidden:], np.unique(starts.clip(0)), reorder)

    def __len__(self) -> int:
        return self.times.size

    def key_before(self, frame: int, margin: int = 0) -> int:
        """The last keyframe at least `margin` pictures before `frame`, or 0."""
        return int(self.keys[max(np.searchsorted(self.keys, frame - margin, side="right") - 1, 0)])

    def seek_cost(self, frames: Iterable[int], margin: int) -> int:
        """Pictures to decode in order to reach each of the sorted `frames`, seeking where that is shorter."""
        cost, position = 0, -1
        for frame in frames:
            jump = frame - self.key_before(frame, margin) + 1 + SEEK_COST
            cost += min(jump, frame - position)
            position = frame
        return cost
