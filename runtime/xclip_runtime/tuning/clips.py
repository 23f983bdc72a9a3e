"""Calibration clips of a tuning, which need no data set."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.selftest import golden_clip
from xclip_runtime.video import FrameTransform
from xclip_runtime.video.load import Reading, read_video

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xclip_runtime.bundle import Bundle

MAX_VIDEOS = 64


def calibration_clips(bundle: Bundle, videos: Sequence[str] = ()) -> NDArray[np.uint8]:
    """Prepare the clips: the golden clip first, then the sample, dark, bright and reversed, and the user's videos.

    Returns:
        uint8 RGB (K, T, size, size, 3).

    Raises:
        VideoError: A video cannot be read.
    """
    transform = FrameTransform(bundle.preprocessor["profile"], bundle.image_size)

    def read(video: str) -> NDArray[np.uint8]:
        frames = read_video(video, bundle.num_frames, transform, Reading()).frames
        clip: NDArray[np.uint8] = np.asarray(frames).reshape(-1, *frames.shape[-4:])[0]
        return clip

    sample = read(str(DEMO_VIDEO))
    dark, bright = sample // 4, 255 - sample // 4
    users = [read(video) for video in videos[:MAX_VIDEOS]]
    return np.stack([golden_clip(bundle.num_frames, bundle.image_size), sample, dark, bright, sample[::-1], *users])
