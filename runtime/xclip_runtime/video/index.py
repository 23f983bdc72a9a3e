"""Which packets of a video hold its pictures, and which of them a few pictures depend on. Nothing is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.video.packets import Role


class Packet(NamedTuple):
    """What is known of a stored picture without decoding it."""

    time: float
    """When it is shown, milliseconds; NaN where the file does not say, or it never is."""
    role: Role
    size: int
    """Bytes."""


def list_packets(packets: Iterable[Packet], patience: float) -> list[Packet] | None:
    """All the packets, or None when the first of them, more than `patience`, show nothing that might be left out."""
    listed: list[Packet] = []
    promising = False
    for packet in packets:
        promising = promising or packet.role.droppable or (packet.role.entry and len(listed) > 0)
        listed.append(packet)
        if not promising and len(listed) > patience:
            return None
    return listed


def timed_by_order(packets: Sequence[Packet], interval: float) -> list[Packet]:
    """Give packets whose times are not known those of a constant rate.

    Of a codec in which pictures are shown as they are stored, but for one that others refer to: it waits until the next
    of its kind (ITU-T H.262 6.1.1.11).

    Args:
        packets: In stored order.
        interval: Milliseconds from one picture to the next.
    """
    references = [place for place, packet in enumerate(packets) if not packet.role.droppable]
    turns = np.arange(len(packets))
    turns[references] = [*references[1:], len(packets)]
    turns -= 1
    return [packet._replace(time=turn * interval) for packet, turn in zip(packets, turns.tolist(), strict=True)]


@dataclass(frozen=True)
class Excerpt:
    """The packets to decode for a few pictures, and what has to come out if the index is right."""

    packets: NDArray[np.int64]
    """Their places in the file, sorted."""
    starts: frozenset[int]
    """Those of them that do not follow on from the one before: the decoder begins anew."""
    shown: tuple[int, ...]
    """The pictures that they hold and no edit list hides, in the order in which they are shown."""
    optional: frozenset[int]
    """Pictures that depend on packets before a start: a decoder may leave them out."""
    share: float
    """Estimated work, as a part of that of decoding the whole video."""


@dataclass
class _Run:
    """Neighbouring packets, and the pictures that depend on them."""

    entry: int
    end: int
    frames: list[int]


@dataclass(frozen=True)
class FrameIndex:
    """The pictures of a video."""

    times: NDArray[np.float64]
    """When each is shown, milliseconds, strictly increasing; the identity by which a picture is verified."""
    numbers: NDArray[np.int64]
    """The number of the picture in each packet, in stored order; negative where an edit list hides it."""
    entries: NDArray[np.int64]
    """Places of the packets at which decoding can start, sorted; the first is 0."""
    droppable: NDArray[np.bool_]
    """For each packet, whether no other picture depends on it."""
    sizes: NDArray[np.int64]
    """Bytes of each packet."""

    @classmethod
    def from_packets(cls, packets: Sequence[Packet]) -> FrameIndex | None:
        """Sort packets, given in stored order, by the time at which they are shown.

        Packets from before time 0 are those that an edit list hides: decoding needs them, no one sees them.

        Returns:
            None when the times are no identity (missing or repeated), when nothing can be decoded at the start, or when
            the first packet is not the first to be shown: those before it may miss what they depend on.
        """
        stored = np.array([packet.time for packet in packets], np.float64)
        order = np.argsort(stored, kind="stable")
        shown = stored[order]
        hidden = int(np.searchsorted(shown, 0.0))
        entries = np.flatnonzero([packet.role.entry for packet in packets])
        if hidden == shown.size or not np.all(np.diff(shown) > 0) or entries.size == 0 or entries[0] > 0:
            return None
        numbers = np.empty(order.size, np.int64)
        numbers[order] = np.arange(order.size) - hidden
        if numbers[0] > 0:
            return None
        highest = max(packet.role.layer for packet in packets)
        droppable = np.array([packet.role.droppable and packet.role.layer == highest for packet in packets])
        return cls(shown[hidden:], numbers, entries, droppable, np.array([packet.size for packet in packets]))

    def __len__(self) -> int:
        return self.times.size

    def excerpt(self, frames: Iterable[int]) -> Excerpt:
        """The packets that the pictures `frames` depend on."""
        fed = np.zeros(self.numbers.size, np.bool_)
        for frame in frames:
            entry, place = self._span(frame)
            fed[entry : place + 1] |= ~self.droppable[entry : place + 1]
            fed[place] = True
        packets = np.flatnonzero(fed)
        missed = np.cumsum(~self.droppable & ~fed)[packets]
        starts = packets[np.flatnonzero(np.diff(missed, prepend=-1))]
        since = starts[np.searchsorted(starts, packets, side="right") - 1]
        numbers = self.numbers[packets]
        leading = numbers < self.numbers[since]
        return Excerpt(
            packets,
            frozenset(starts.tolist()),
            tuple(np.sort(numbers[~leading & (numbers >= 0)]).tolist()),
            frozenset(numbers[leading].tolist()),
            share=float(self._work[packets].sum()),
        )

    def split(self, frames: Iterable[int], most: int) -> list[list[int]]:
        """Split pictures into at most so many groups that depend on different packets, with about equal work."""
        runs: list[_Run] = []
        for entry, place, frame in sorted((*self._span(frame), frame) for frame in set(frames)):
            if runs and entry <= runs[-1].end:
                runs[-1].frames.append(frame)
                runs[-1].end = max(runs[-1].end, place)
            else:
                runs.append(_Run(entry, place, [frame]))
        before = np.concatenate([[0.0], np.cumsum(np.where(self.droppable, 0.0, self._work))])
        work = np.array([before[run.end + 1] - before[run.entry] for run in runs])
        middles = (np.cumsum(work) - work / 2) / (work.sum() or 1)
        groups: list[list[int]] = [[] for _ in range(most)]
        for run, middle in zip(runs, middles.tolist(), strict=True):
            groups[min(int(middle * most), most - 1)] += run.frames
        return [group for group in groups if group]

    def _span(self, frame: int) -> tuple[int, int]:
        """Places of the packet at which to begin decoding for a picture, and of its own."""
        place = int(self._places[frame])
        behind = self.entries[: np.searchsorted(self.entries, place, side="right")]
        # A picture may be stored behind an entry that is shown after it.
        behind = behind[self.numbers[behind] <= frame]
        return int(behind[-1]) if behind.size else 0, place

    @cached_property
    def _places(self) -> NDArray[np.int64]:
        """Of the packet of each picture."""
        return np.argsort(self.numbers)[self.numbers.size - len(self) :]

    @cached_property
    def _work(self) -> NDArray[np.float64]:
        """What it takes to decode each packet, estimated, as a part of decoding all."""
        work: NDArray[np.float64] = 1 / self.sizes.size + self.sizes / max(self.sizes.sum(), 1)
        return work / 2
