"""Antialiased bilinear resize, as Pillow does it, of just the part that a centre crop keeps."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, cast

import cv2
import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Outputs that share one matrix product: few, so that little of the matrix is zero, yet enough to keep BLAS busy.
_BAND = 4
# Multiply-adds of one product: OpenBLAS wakes its threads for a million, which costs more than it saves here, and a
# hundred times more when the cores are busy.
_PRODUCT = 900_000


class Band(NamedTuple):
    """A few neighbouring outputs of a filter and the inputs that they depend on."""

    outputs: slice
    inputs: slice
    weights: NDArray[np.float32]
    """float32 (outputs, inputs)."""


@lru_cache(maxsize=64)
def triangle_bands(length: int, resized: int, start: int, count: int) -> tuple[Band, ...]:
    """A triangle filter that resizes `length` samples to `resized`, for the outputs from `start` to `start` + `count`.

    When shrinking, the triangle is as wide as the scale (antialiasing); when enlarging this is linear interpolation.
    Taps outside the picture are dropped and the rest renormalised, as in Pillow.
    """
    scale = length / resized
    support = max(scale, 1.0)
    bands = []
    for first in range(0, count, _BAND):
        last = min(first + _BAND, count)
        centres = (np.arange(start + first, start + last) + 0.5) * scale
        low, high = max(int(centres[0] - support), 0), min(int(centres[-1] + support) + 1, length)
        distance = np.abs(np.arange(low, high) + 0.5 - centres[:, None]) / support
        weights = np.maximum(1.0 - distance, 0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        bands.append(Band(slice(first, last), slice(low, high), weights.astype(np.float32)))
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
    used = across[0].inputs.start
    rows = _filter_rows(frame[:, used : across[-1].inputs.stop], down)
    turned = cast("NDArray[np.float32]", cv2.transpose(rows))
    return cast("NDArray[np.uint8]", cv2.transpose(cv2.convertScaleAbs(_filter_rows(turned, across, used))))


def _filter_rows(
    picture: NDArray[np.uint8] | NDArray[np.float32], bands: tuple[Band, ...], skipped: int = 0
) -> NDArray[np.float32]:
    """Filter along the first axis; `skipped` is the number of leading inputs that `picture` lacks."""
    _, width, channels = picture.shape
    out = np.empty((bands[-1].outputs.stop, width * channels), np.float32)
    strip = np.empty((max(band.weights.shape[1] for band in bands), width, channels), np.float32)
    for band in bands:
        inputs = picture[band.inputs.start - skipped : band.inputs.stop - skipped]
        part = strip[: len(inputs)]
        np.copyto(part, inputs)
        flat = part.reshape(len(inputs), -1)
        tile = max(_PRODUCT // band.weights.size, 1)
        for column in range(0, flat.shape[1], tile):
            columns = slice(column, column + tile)
            np.matmul(band.weights, flat[:, columns], out=out[band.outputs, columns])
    return out.reshape(-1, width, channels)
