"""Antialiased bilinear resize, as Pillow does it, of just the part that a centre crop keeps."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

from xclip_runtime.errors import VideoLimitError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

MAX_ASPECT = 256
"""Largest ratio of the sides of a frame."""

# Outputs and inputs that share one matrix product: few, so that little of the matrix is zero, yet enough to keep BLAS
# busy and calls of it rare.
_LEAST_OUTPUTS = 4
_LEAST_INPUTS = 16
# Multiply-adds of one product: OpenBLAS wakes its threads for a million, which costs more than it saves here, and a
# hundred times more when the cores are busy.
_PRODUCT = 900_000
# Numbers that are converted at once: few enough to stay in a core's cache, so that neighbouring bands, which share
# inputs, find them converted.
_STRIP = 300_000


class _Scratch(threading.local):
    """Arrays that are used again: the page faults of fresh ones take longer than the filter itself."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.float32]] = {}

    def __call__(self, name: str, *shape: int) -> NDArray[np.float32]:
        """Return a float32 array of finite numbers, this thread's own until the next call for `name`."""
        size = math.prod(shape)
        if name not in self._held or self._held[name].size < size:
            self._held[name] = np.zeros(size, np.float32)
        return self._held[name][:size].reshape(shape)


_scratch = _Scratch()


class Band(NamedTuple):
    """A few neighbouring outputs of a filter and the inputs that they depend on."""

    outputs: slice
    inputs: slice
    weights: NDArray[np.float32]
    """float32 (outputs, inputs)."""


@lru_cache(maxsize=64)
def check_aspect(height: int, width: int) -> None:
    """Refuse a frame whose short side is so short that enlarging it would make a huge image.

    Raises:
        VideoLimitError: A side is more than `MAX_ASPECT` times as long as the other.
    """
    short, long = sorted((height, width))
    if long > MAX_ASPECT * short:
        message = f"a frame has {width}x{height} pixels: give frames at most {MAX_ASPECT} times as long as short"
        raise VideoLimitError(message)


def triangle_bands(length: int, resized: int, start: int, count: int) -> tuple[Band, ...]:
    """Compute a triangle filter from `length` samples to `resized`, for outputs `start` to `start` + `count`.

    When shrinking, the triangle is as wide as the scale (antialiasing); when enlarging this is linear interpolation.
    Taps outside the image are dropped and the rest renormalised, as in Pillow.
    """
    scale = length / resized
    support = max(scale, 1.0)
    outputs = max(_LEAST_OUTPUTS, int(_LEAST_INPUTS / scale))
    bands = []
    for first in range(0, count, outputs):
        last = min(first + outputs, count)
        centres = (np.arange(start + first, start + last) + 0.5) * scale
        low, high = max(int(centres[0] - support), 0), min(int(centres[-1] + support) + 1, length)
        distance = np.abs(np.arange(low, high) + 0.5 - centres[:, None]) / support
        weights = np.maximum(1.0 - distance, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(Band(slice(first, last), slice(low, high), weights.astype(np.float32)))
    return tuple(bands)


@lru_cache(maxsize=64)
def _interleaved_bands(length: int, resized: int, start: int, count: int) -> tuple[Band, ...]:
    """Compute `triangle_bands` for rows of three-channel pixels; weights are (inputs, outputs)."""
    return tuple(
        Band(_channels(band.outputs), _channels(band.inputs), np.kron(band.weights.T, np.eye(3, dtype=np.float32)))
        for band in triangle_bands(length, resized, start, count)
    )


def _channels(pixels: slice) -> slice:
    return slice(3 * pixels.start, 3 * pixels.stop)


def _tiles(length: int, weights: NDArray[np.float32]) -> Iterator[slice]:
    """Split the dimension that a product with `weights` leaves as it is."""
    step = max(_PRODUCT // weights.size, 1)
    return (slice(place, min(place + step, length)) for place in range(0, length, step))


def resize_corner(frame: NDArray[np.uint8], resized: tuple[int, int], corner: tuple[int, int]) -> NDArray[np.uint8]:
    """Compute the top left (height, width) `corner` of a resized frame, without the rest.

    The scale is that of the whole, so the pixels are the same; a corner is also small enough for OpenCV not to wake
    threads, which at these sizes double the processor time.
    """
    scale = [part / whole for part, whole in zip(resized, frame.shape[:2], strict=True)]
    # Linear interpolation looks one pixel further, and the resized size is rounded.
    rows, columns = (int(side / factor) + 3 for side, factor in zip(corner, scale, strict=True))
    part = cv2.resize(frame[:rows, :columns], None, fx=scale[1], fy=scale[0], interpolation=cv2.INTER_LINEAR)
    return np.asarray(part[: corner[0], : corner[1]], np.uint8)


def resize_crop(
    frame: NDArray[np.uint8], resized: tuple[int, int], crop: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Resize a frame and crop it, computing only the crop.

    Args:
        frame: uint8 (H, W, 3).
        resized: (height, width) of the whole resized frame.
        crop: (top, left, height, width) of the crop in the resized frame.

    Returns:
        uint8 (height, width, 3).
    """
    top, left, height, width = crop
    down = triangle_bands(frame.shape[0], resized[0], top, height)
    across = _interleaved_bands(frame.shape[1], resized[1], left, width)
    first = across[0].inputs.start
    used = frame[:, first // 3 : across[-1].inputs.stop // 3]
    numbers = 3 * used.shape[1]
    rows = _scratch("rows", height, numbers)
    begin = end = 0
    for outputs, inputs, weights in down:
        if inputs.stop > end:
            begin = inputs.start
            end = min(max(begin + _STRIP // numbers, inputs.stop), down[-1].inputs.stop)
            strip = _converted(used[begin:end])
        source = strip[inputs.start - begin : inputs.stop - begin]
        for tile in _tiles(numbers, weights):
            np.matmul(weights, source[:, tile], out=rows[outputs, tile])
    cropped = _scratch("cropped", height, 3 * width)
    for outputs, inputs, weights in across:
        source = rows[:, inputs.start - first : inputs.stop - first]
        for tile in _tiles(height, weights):
            np.matmul(source[tile], weights, out=cropped[tile, outputs])
    return np.asarray(cv2.convertScaleAbs(cropped), np.uint8).reshape(height, width, 3)


def _converted(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Convert rows of a frame to float32 (H, 3 * W), valid until the next call."""
    converted = _scratch("strip", *rows.shape)
    # OpenCV's quickest conversion of bytes to float: with weight 1 the average is the new frame, and the old content
    # counts zero times.
    cv2.accumulateWeighted(rows, converted, 1.0)
    return converted.reshape(len(rows), -1)
