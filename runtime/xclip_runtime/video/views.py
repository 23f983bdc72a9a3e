"""Views of one video, whose probabilities are averaged: temporal positions and crops."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from xclip_runtime.util.arguments import check_count
from xclip_runtime.util.resize import resize_crop

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.video.transforms import FrameTransform


@dataclass(frozen=True)
class Views:
    """POSITIONSxCROPS views.

    The temporal positions are those of `SampleFrames` of microsoft/VideoX made deterministic: the original draws one
    frame at random from each segment; here the segment is cut in `positions` equal parts, and view p takes the centre
    of part p. So all together are the uniform sampling of positions * T frames, dealt out in turn.
    """

    positions: int = 1
    """Temporal positions, at least 1."""
    crops: int = 1
    """1 for the centre; 3 for left, right and middle, or top, bottom and middle (`ThreeCrop`)."""

    def __post_init__(self) -> None:
        check_count("positions", self.positions)
        if self.crops not in (1, 3):
            message = f"{self.positions}x{self.crops} views: use POSITIONSxCROPS, with 1 or 3 crops, such as 4x3"
            raise ValueError(message)

    @classmethod
    def parse(cls, text: str) -> Views:
        """Read POSITIONSxCROPS, such as 4x3."""
        match = re.fullmatch(r"([1-9]\d{0,3})x(\d)", text)
        if match is None:
            message = f"{text!r} cannot be read as views: use POSITIONSxCROPS, such as 4x3"
            raise ValueError(message)
        return cls(int(match[1]), int(match[2]))

    def __len__(self) -> int:
        return self.positions * self.crops


def three_crops(frame: NDArray[np.uint8], transform: FrameTransform) -> NDArray[np.uint8]:
    """Crop a frame, uint8 RGB (H, W, 3), as `ThreeCrop` of microsoft/VideoX does: first edge, last edge, middle.

    The short side is resized to `transform.size`, with the profile's interpolation and rounding, so the three crops
    cover it wholly. When the spare length is odd the last edge's crop ends one pixel early, as in the original.

    Returns:
        uint8 RGB (3, size, size, 3).
    """
    size = transform.size
    height, width = transform.resized(frame.shape[0], frame.shape[1], short_side=size)
    if transform.profile == "videox":
        resized = cv2.resize(frame, (width, height), interpolation=cv2.INTER_LINEAR)
    else:
        resized = resize_crop(frame, (height, width), (0, 0, height, width))
    step = (max(height, width) - size) // 2
    out = np.empty((3, size, size, 3), np.uint8)
    for crop, offset in zip(out, (0, 2 * step, step), strict=True):
        top, left = (offset, 0) if height > width else (0, offset)
        crop[...] = resized[top : top + size, left : left + size]
    return out
