"""Training batches: scenes rendered on the fly and degraded as real videos are, never twice the same."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np
import torch

from motion_demo.labels import COLOURS, MOTIONS, SEEN
from motion_demo.model import NUM_FRAMES
from motion_demo.scenes import CORE, HEAD_PLACE, HEAD_RADIUS, TRAINING_SEEDS, render, sample_scene

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from motion_demo.labels import Label

# Radius, in pixels, at which the size target is 0.
_TYPICAL_RADIUS = 36.0


class Batch(NamedTuple):
    """Clips with their ground truth.

    Attributes:
        frames: (B, T, 224, 224, 3) uint8 RGB.
        poses: (B, T, 5) float32: x and y of the shape from -1 to 1 across the frame, log size, and how far right of and
            below the shape's centre its head is, in the same unit as x and y.
        colours: (B,) int64 indices into COLOURS.
        motions: (B,) int64 indices into MOTIONS.
        pairs: (B,) int64 indices into SEEN.
        positions: The T temporal positions, of 32, at which the frames were taken.
    """

    frames: torch.Tensor
    poses: torch.Tensor
    colours: torch.Tensor
    motions: torch.Tensor
    pairs: torch.Tensor
    positions: list[int]


class Batches(torch.utils.data.Dataset[Batch]):
    """Batches of one phase; a step always gives the same batch, so training can resume anywhere.

    Args:
        first_seed: Seed of the phase's first clip; clip k has ``first_seed + k``.
        clips: Clips a batch.
        frames: Frames a clip, a divisor of 32.
    """

    def __init__(self, *, first_seed: int, clips: int, frames: int) -> None:
        self.first_seed, self.clips, self.frames = first_seed, clips, frames

    def __getitem__(self, step: int) -> Batch:
        seeds = range(self.first_seed + step * self.clips, self.first_seed + (step + 1) * self.clips)
        positions = sample_positions(np.random.default_rng((seeds[0], 3)), self.frames)
        return make_batch(seeds, positions)


def sample_positions(rng: np.random.Generator, num_frames: int) -> list[int]:
    """Take one of the 32 temporal positions out of each of ``num_frames`` equal parts, so that all get trained."""
    stride = NUM_FRAMES // num_frames
    return [part * stride + int(rng.integers(stride)) for part in range(num_frames)]


def make_batch(seeds: Sequence[int], positions: list[int]) -> Batch:
    """Render one clip a seed, of a seen pair chosen by the seed.

    Raises:
        ValueError: A seed is kept for validation or evaluation.
    """
    if not all(seed in TRAINING_SEEDS for seed in seeds):
        message = "training seeds run from 0 to 2**30: use a smaller first_seed"
        raise ValueError(message)
    pairs = [int(np.random.default_rng((seed, 2)).integers(len(SEEN))) for seed in seeds]
    clips = [training_clip(seed, SEEN[pair], positions) for seed, pair in zip(seeds, pairs, strict=True)]
    motions = list(MOTIONS)
    return Batch(
        frames=torch.from_numpy(np.stack([frames for frames, _ in clips])),
        poses=torch.from_numpy(np.stack([poses for _, poses in clips])),
        colours=torch.tensor([COLOURS.index(SEEN[pair].colour) for pair in pairs]),
        motions=torch.tensor([motions.index(SEEN[pair].motion) for pair in pairs]),
        pairs=torch.tensor(pairs),
        positions=positions,
    )


def training_clip(seed: int, label: Label, positions: Sequence[int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Render a degraded clip at a scale between those of the two preprocessing profiles.

    ``videox`` (short side to 256, centre 224) shows an evaluation clip at scale 1, ``hf`` (short side to 224) at 0.875.

    Returns:
        Frames (T, 224, 224, 3) uint8 and poses (T, 5) float32, as in `Batch`.
    """
    rng = np.random.default_rng((seed, 4))
    scene = sample_scene(seed, label)
    times = (np.array(positions) + 0.5) / NUM_FRAMES
    scale, shift = rng.uniform(0.84, 1.05), rng.uniform(-7, 7, size=2)
    frames = render(scene, times, scale=scale, shift=(shift[0], shift[1]))
    x, y, radius, angle = scene.path.poses(times).T
    radius = scale * radius
    poses = [
        (scale * x + shift[0]) / (CORE / 2),
        (scale * y + shift[1]) / (CORE / 2),
        np.log(radius / _TYPICAL_RADIUS),
        HEAD_PLACE * radius * np.cos(angle) / (CORE / 2),
        HEAD_PLACE * radius * np.sin(angle) / (CORE / 2),
    ]
    return degrade(rng, frames), np.stack(poses, axis=1).astype(np.float32)


def covered_patches(poses: torch.Tensor, side: int = 7) -> torch.Tensor:
    """Mark the patches with their centre near the shape and near its head.

    Args:
        poses: (..., 5) as in `Batch`.
        side: Patches along each edge of a frame.

    Returns:
        (..., side * side, 2) float32 of 0 and 1, row by row: within the shape's circle;
        within half a patch of its head or within the head.
    """
    middles = (torch.arange(side) + 0.5) / (side / 2) - 1
    y, x = torch.cartesian_prod(middles, middles).T
    radius = poses[..., 2:3].exp() * _TYPICAL_RADIUS / (CORE / 2)
    dx, dy = x - poses[..., 0:1], y - poses[..., 1:2]
    shape = torch.hypot(dx, dy) < radius
    head = torch.hypot(dx - poses[..., 3:4], dy - poses[..., 4:5]) < torch.clamp(HEAD_RADIUS * radius, min=1 / side)
    return torch.stack([shape, head], dim=-1).float()


def degrade(rng: np.random.Generator, frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Change tone, sharpness and compression of a whole clip as cameras and video codecs do.

    Args:
        rng: Decides what is done.
        frames: (T, H, W, 3) uint8.

    Returns:
        A copy of the same shape, changed in some of those ways or in none.
    """
    height, width = frames.shape[1:3]
    changes: list[Callable[[NDArray[np.uint8]], Any]] = []
    if rng.random() < 0.5:
        levels = np.arange(256) / 255
        tone = rng.uniform(0.85, 1.15) * levels ** rng.uniform(0.8, 1.25) + rng.uniform(-0.06, 0.06)
        table = np.clip(255 * tone, 0, 255).astype(np.uint8)
        changes.append(lambda frame: cv2.LUT(frame, table))
    if rng.random() < 0.25:
        sigma = rng.uniform(0.4, 1.3)
        changes.append(lambda frame: cv2.GaussianBlur(frame, (5, 5), sigma))
    if rng.random() < 0.25:
        factor = rng.uniform(0.45, 0.9)
        small = (round(factor * width), round(factor * height))
        changes.append(lambda frame: cv2.resize(cv2.resize(frame, small), (width, height)))
    if rng.random() < 0.25:
        quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 85))]
        changes.append(lambda frame: cv2.imdecode(cv2.imencode(".jpg", frame, quality)[1], cv2.IMREAD_COLOR))
    return np.stack([reduce(lambda image, change: change(image), changes, frame) for frame in frames])
