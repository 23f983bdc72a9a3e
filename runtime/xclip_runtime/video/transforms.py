"""Preprocess decoded frames for the vision graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np

from xclip_runtime.bundle import Profile
from xclip_runtime.errors import FramesError
from xclip_runtime.util.resize import check_aspect, resize_corner, resize_crop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


@dataclass(frozen=True)
class FrameTransform:
    """Resize and centre crop of one of the two preprocessing profiles.

    `videox` is what the checkpoints were trained and scored with (datasets/build.py of microsoft/VideoX): short side
    int(256 / 224 * size), both sides rounded half up, bilinear without antialiasing. `hf` is what the processor of
    transformers does: short side `size`, long side truncated, antialiased bilinear, to one grey level of Pillow's.
    """

    profile: Profile
    size: int = 224
    """Height and width of a preprocessed frame, pixels."""

    def __post_init__(self) -> None:
        if self.profile not in get_args(Profile):
            message = f"unknown profile {self.profile!r}: use one of {', '.join(get_args(Profile))}"
            raise ValueError(message)
        if self.size < 1:
            message = f"the size is {self.size}: it must be at least 1"
            raise ValueError(message)

    def __call__(self, frame: NDArray[np.uint8], out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Preprocess a frame, uint8 RGB (H, W, 3), to uint8 RGB (size, size, 3), into `out` where that is given."""
        check_aspect(frame.shape[0], frame.shape[1])
        if out is None:
            out = np.empty((self.size, self.size, 3), np.uint8)
        height, width = self.resized(frame.shape[0], frame.shape[1])
        top, left = (height - self.size) // 2, (width - self.size) // 2
        if self.profile == "videox":
            cropped = resize_corner(frame, (height, width), (top + self.size, left + self.size))[top:, left:]
        else:
            cropped = resize_crop(frame, (height, width), (top, left, self.size, self.size))
        out[...] = cropped
        return out

    def resized(self, height: int, width: int, short_side: int | None = None) -> tuple[int, int]:
        """Return height and width, pixels, to which a whole frame is resized before the crop.

        Args:
            height: Height of the frame, pixels.
            width: Width of the frame, pixels.
            short_side: Resized short side; the profile's own when left out.
        """
        short, long = sorted((height, width))
        if self.profile == "videox":
            factor = (short_side or int(256 / 224 * self.size)) / short
            return int(height * factor + 0.5), int(width * factor + 0.5)
        resized_short = short_side or self.size
        resized_long = int(resized_short * long / short)
        return (resized_short, resized_long) if height <= width else (resized_long, resized_short)


def prepare_frames(
    frames: NDArray[np.uint8] | Sequence[NDArray[np.uint8]], transform: FrameTransform
) -> NDArray[np.uint8]:
    """Preprocess frames in memory, uint8 RGB (T, H, W, 3) or T arrays of different sizes, to (T, size, size, 3).

    Raises:
        FramesError: Not uint8, not three channels, or no frame at all.
    """
    if len(frames) == 0:
        message = "there is no frame: pass uint8 RGB of shape (T, H, W, 3)"
        raise FramesError(message)
    out = np.empty((len(frames), transform.size, transform.size, 3), np.uint8)
    for index, frame in enumerate(frames):
        is_array = isinstance(frame, np.ndarray)
        if not is_array or frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3 or 0 in frame.shape:
            found = f"{frame.dtype} {frame.shape}" if is_array else type(frame).__name__
            message = f"frame {index} is {found}: pass uint8 RGB of shape (T, H, W, 3)"
            raise FramesError(message)
        transform(frame, out[index])
    return out
