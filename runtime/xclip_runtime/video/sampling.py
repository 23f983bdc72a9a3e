"""Sampling strategies: the frames of a video to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from xclip_runtime.errors import VideoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

Sampling: TypeAlias = "Callable[[NDArray[np.float64], int], NDArray[np.int64]]"
"""A strategy: from the times of all frames, seconds, and the number wanted, to that many indices into the times."""


def uniform_indices(total: int, num_frames: int) -> NDArray[np.int64]:
    """Take the centre frame of each of `num_frames` equal segments: int64 (num_frames,), sorted, each in [0, total).

    The formula ((2i + 1) * total) // (2 * num_frames) is the test-mode sampling of the original X-CLIP (`SampleFrames`
    of microsoft/VideoX) in integers. A video shorter than `num_frames` repeats frames.

    Raises:
        ValueError: `total` or `num_frames` is below 1.
    """
    if total < 1 or num_frames < 1:
        message = f"total and num_frames are {total} and {num_frames}: both must be at least 1"
        raise ValueError(message)
    return (2 * np.arange(num_frames, dtype=np.int64) + 1) * total // (2 * num_frames)


def uniform(times: NDArray[np.float64], num_frames: int) -> NDArray[np.int64]:
    """Take `uniform_indices` over all frames, as the checkpoints do."""
    return uniform_indices(times.size, num_frames)


def given(indices: Sequence[int]) -> Sampling:
    """Take the caller's own frames, in the caller's order; negative indices are an error."""
    wanted = np.asarray(indices, np.int64)

    def sample(times: NDArray[np.float64], num_frames: int) -> NDArray[np.int64]:
        if wanted.size != num_frames:
            message = f"{wanted.size} frame indices are given where {num_frames} are needed: give exactly that many"
            raise ValueError(message)
        outside = wanted[(wanted < 0) | (wanted >= times.size)]
        if outside.size:
            message = f"frame {outside[0]} is asked for: give 0 to {times.size - 1}"
            raise VideoError(message)
        return wanted

    return sample
