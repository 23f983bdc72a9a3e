"""Antialiased bilinear resize, as Pillow does it, of just the part that a centre crop keeps."""

from __future__ import annotations

import math
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# Outputs and inputs that share one matrix product: few, so that little of the matrix is zero, yet enough to keep BLAS
# busy and calls of it rare.
_LEAST_OUTPUTS = 4
_LEAST_INPUTS = 16
# Multiply-adds of one product: OpenBLAS wakes its threads for a million, which costs more than it saves here, and a
# hundred times more when the cores are busy.
_PRODUCT = 900_000
# Numbers that are converted at once: few enough to stay in a core's cache, so that neighbouring bands, which share
# inputs, find them converted.
_PIECE = 300_000


class _Scratch(threading.local):
    """Arrays that are used again: the page faults of fresh ones take longer than the filter itself."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.float32]] = {}

    def __call__(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A float32 array of finite numbers, this thread's own until the next call for `name`."""
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
    pixel_weights: NDArray[np.float32]
    """float32 (3 * inputs, 3 * outputs): the same for rows of pixels of three channels, which do not mix."""


@lru_cache(maxsize=64)
def triangle_bands(length: int, resized: int, start: int, count: int) -> tuple[Band, ...]:
    """A triangle filter that resizes `length` samples to `resized`, for the outputs from `start` to `start` + `count`.

    When shrinking, the triangle is as wide as the scale (antialiasing); when enlarging this is linear interpolation.
    Taps outside the picture are dropped and the rest renormalised, as in Pillow.
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
        weights = weights.astype(np.float32)
        pixel_weights = np.kron(weights.T, np.eye(3, dtype=np.float32))
        bands.append(Band(slice(first, last), slice(low, high), weights, pixel_weights))
    return tuple(bands)


def resize_crop(
    frame: NDArray[np.uint8], resized: tuple[int, int], crop: tuple[int, int, int, int]
) -> NDArray[np.uint8]:
    """Resize a picture and cut a rectangle out, computing only that rectangle.

    Args:
        frame: uint8 (H, W, 3).
        resized: (height, width) of the whole resized picture.
        crop: (top, left, height, width) of the rectangle in the resized picture.

    Returns:
        uint8 (height, width, 3).
    """
    top, left, height, width = crop
    down = triangle_bands(frame.shape[0], resized[0], top, height)
    across = triangle_bands(frame.shape[1], resized[1], left, width)
    used = slice(across[0].inputs.start, across[-1].inputs.stop)
    rows = _scratch("rows", height, used.stop - used.start, 3)
    _filter_down(frame[:, used], down, rows)
    square = _scratch("square", height, width, 3)
    _filter_across(rows, across, square)
    return np.asarray(cv2.convertScaleAbs(square), np.uint8)


def _filter_down(picture: NDArray[np.uint8], bands: tuple[Band, ...], out: NDArray[np.float32]) -> None:
    """Filter the columns of a picture (H, W, 3) into `out`."""
    flat_out = out.reshape(len(out), -1)
    for piece in _pieces(bands, _PIECE // flat_out.shape[1]):
        first = piece[0].inputs.start
        inputs = picture[first : piece[-1].inputs.stop]
        strip = _scratch("strip", *inputs.shape)
        # With weight 1 nothing of the finite numbers in `strip` remains: OpenCV's quickest way from bytes to float.
        cv2.accumulateWeighted(inputs, strip, 1.0)
        flat = strip.reshape(len(strip), -1)
        for band in piece:
            rows = flat[band.inputs.start - first : band.inputs.stop - first]
            tile = max(_PRODUCT // band.weights.size, 1)
            for column in range(0, flat.shape[1], tile):
                columns = slice(column, column + tile)
                np.matmul(band.weights, rows[:, columns], out=flat_out[band.outputs, columns])


def _pieces(bands: tuple[Band, ...], inputs: int) -> Iterator[tuple[Band, ...]]:
    """Split bands into runs that depend on at most so many inputs each, or on more where one band alone does."""
    first = 0
    for place, band in enumerate(bands):
        if place > first and band.inputs.stop - bands[first].inputs.start > inputs:
            yield bands[first:place]
            first = place
    yield bands[first:]


def _filter_across(picture: NDArray[np.float32], bands: tuple[Band, ...], out: NDArray[np.float32]) -> None:
    """Filter the rows of a picture (H, W, 3), which starts at the first input of the bands, into `out`."""
    flat, flat_out = picture.reshape(len(picture), -1), out.reshape(len(out), -1)
    first = bands[0].inputs.start
    for band in bands:
        weights = band.pixel_weights
        inputs = slice(3 * (band.inputs.start - first), 3 * (band.inputs.stop - first))
        outputs = slice(3 * band.outputs.start, 3 * band.outputs.stop)
        tile = max(_PRODUCT // weights.size, 1)
        for row in range(0, len(flat), tile):
            rows = slice(row, row + tile)
            np.matmul(flat[rows, inputs], weights, out=flat_out[rows, outputs])
