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
    """Take the centre frame of each of `num_frames` equal segments.

    The formula ((2i + 1) * total) // (2 * num_frames) is the test-mode sampling of the original X-CLIP (`SampleFrames`
    of microsoft/VideoX) in integers. A video shorter than `num_frames` repeats frames.

    Args:
        total: Frames in the video, at least 1.
        num_frames: Indices wanted, at least 1.

    Returns:
        int64 (num_frames,), sorted, each in [0, total).

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


def consecutive(stride: int = 1) -> Sampling:
    """Take every `stride`-th frame of a window in the middle; a shorter video repeats its first and last frame."""
    if stride < 1:
        message = f"the stride is {stride}: it must be at least 1"
        raise ValueError(message)

    def sample(times: NDArray[np.float64], num_frames: int) -> NDArray[np.int64]:
        first = (times.size - 1 - (num_frames - 1) * stride) // 2
        return np.asarray(np.clip(first + stride * np.arange(num_frames), 0, times.size - 1), np.int64)

    return sample


def at_rate(fps: float) -> Sampling:
    """Take the frames on show `fps` times a second, in a window in the middle, as `consecutive` does."""
    if not fps > 0:
        message = f"the rate is {fps} frames a second: it must be above 0"
        raise ValueError(message)

    def sample(times: NDArray[np.float64], num_frames: int) -> NDArray[np.int64]:
        middle = (times[0] + times[-1]) / 2
        moments = middle + (np.arange(num_frames) - (num_frames - 1) / 2) / fps
        on_show = np.searchsorted(times, moments + 1e-6, side="right") - 1
        return np.asarray(np.clip(on_show, 0, times.size - 1), np.int64)

    return sample


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
