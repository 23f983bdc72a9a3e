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
_STRIP = 300_000


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


class Product(NamedTuple):
    """A band of a filter, or a tile of it, as a product of matrices."""

    weights: NDArray[np.float32]
    source: tuple[slice, slice]
    """Rows and columns of the matrix that is read."""
    target: tuple[slice, slice]
    """Rows and columns of the matrix that is written."""


class Strip(NamedTuple):
    """Rows of a picture that are converted to float at once."""

    rows: slice
    products: tuple[Product, ...]
    """What is made of them; `source` counts from the first of the rows."""


def triangle_bands(length: int, resized: int, start: int, count: int) -> list[Band]:
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
        bands.append(Band(slice(first, last), slice(low, high), weights.astype(np.float32)))
    return bands


@lru_cache(maxsize=64)
def _down(length: int, resized: int, start: int, count: int, width: int) -> tuple[Strip, ...]:
    """A filter of columns, for rows of `width` numbers."""
    bands = triangle_bands(length, resized, start, count)
    return tuple(_strip(run, width) for run in _runs(bands, _STRIP // width))


def _runs(bands: list[Band], inputs: int) -> Iterator[list[Band]]:
    """Split bands into runs that depend on at most so many inputs each, or on more where one band alone does."""
    first = 0
    for place, band in enumerate(bands):
        if place > first and band.inputs.stop - bands[first].inputs.start > inputs:
            yield bands[first:place]
            first = place
    yield bands[first:]


def _strip(bands: list[Band], width: int) -> Strip:
    first = bands[0].inputs.start
    products = [
        Product(band.weights, (_behind(band.inputs, first), columns), (band.outputs, columns))
        for band in bands
        for columns in _tiles(width, band.weights)
    ]
    return Strip(slice(first, bands[-1].inputs.stop), tuple(products))


@lru_cache(maxsize=64)
def _across(length: int, resized: int, start: int, count: int, height: int) -> tuple[slice, tuple[Product, ...]]:
    """The columns that a filter of so many rows reads, and what is made of them; `source` counts from their first."""
    bands = triangle_bands(length, resized, start, count)
    columns = slice(bands[0].inputs.start, bands[-1].inputs.stop)
    products = []
    for band in bands:
        # The same for rows of pixels of three channels, which do not mix.
        weights = np.kron(band.weights.T, np.eye(3, dtype=np.float32))
        source, target = _channels(_behind(band.inputs, columns.start)), _channels(band.outputs)
        products += [Product(weights, (rows, source), (rows, target)) for rows in _tiles(height, weights)]
    return columns, tuple(products)


def _tiles(length: int, weights: NDArray[np.float32]) -> Iterator[slice]:
    """Split the dimension that a product with `weights` leaves as it is."""
    step = max(_PRODUCT // weights.size, 1)
    return (slice(place, min(place + step, length)) for place in range(0, length, step))


def _behind(part: slice, first: int) -> slice:
    return slice(part.start - first, part.stop - first)


def _channels(pixels: slice) -> slice:
    return slice(3 * pixels.start, 3 * pixels.stop)


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
    columns, across = _across(frame.shape[1], resized[1], left, width, height)
    used = frame[:, columns]
    down = _down(frame.shape[0], resized[0], top, height, 3 * used.shape[1])
    rows = _scratch("rows", height, 3 * used.shape[1])
    for strip in down:
        source = _converted(used[strip.rows])
        for weights, read, written in strip.products:
            np.matmul(weights, source[read], out=rows[written])
    square = _scratch("square", height, 3 * width)
    for weights, read, written in across:
        np.matmul(rows[read], weights, out=square[written])
    return np.asarray(cv2.convertScaleAbs(square), np.uint8).reshape(height, width, 3)


def _converted(rows: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Rows of a picture as float32 (H, 3 * W), until the next call."""
    converted = _scratch("strip", *rows.shape)
    # With weight 1 nothing of the finite numbers there remains: OpenCV's quickest way from bytes to float.
    cv2.accumulateWeighted(rows, converted, 1.0)
    return converted.reshape(len(rows), -1)
