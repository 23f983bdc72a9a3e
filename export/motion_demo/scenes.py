"""The renderer: an integer seed, a colour and a motion give a scene; a scene gives frames.

Lengths are in *core units*: the action keeps inside a square of 224 units around the centre of the frame, whatever
the size of the canvas. ``x`` runs to the right and ``y`` downwards, as in images; angles are in radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from motion_demo.labels import Label

CORE = 224

# No seed is in two of these ranges, so what is measured was never trained on.
TRAINING_SEEDS = range(2**30)
VALIDATION_SEEDS = range(2**30, 2**31)
EVALUATION_SEEDS = range(2**31, 2**32)

_HUES: Mapping[str, float] = MappingProxyType(
    {"red": 0.0, "orange": 28.0, "yellow": 56.0, "green": 122.0, "cyan": 182.0, "blue": 226.0, "purple": 286.0}
)


def _arc(reach: float, *, radius: float, centre: float) -> list[tuple[float, float]]:
    """Sample a circle from -reach to reach degrees, about a centre on the axis."""
    angles = np.radians(np.linspace(-reach, reach, 24))
    return [(centre + radius * float(np.cos(a)), radius * float(np.sin(a))) for a in angles]


# Outlines within the unit circle, pointing along the first axis.
SHAPES: Mapping[str, list[tuple[float, float]]] = MappingProxyType(
    {
        "triangle": [(1.0, 0.0), (-0.7, 0.7), (-0.7, -0.7)],
        "half disc": _arc(90, radius=1.0, centre=-0.3),
        "wedge": [(0.0, 0.0), *_arc(138, radius=1.0, centre=0.0)],
        "arrow": [(1.0, 0.0), (0.1, 0.85), (0.1, 0.4), (-0.9, 0.4), (-0.9, -0.4), (0.1, -0.4), (0.1, -0.85)],
        "drop": [(-1.0, 0.0), *_arc(122, radius=0.68, centre=0.3)],
        "chevron": [(0.9, 0.0), (-0.05, 0.95), (-0.47, 0.53), (0.05, 0.0), (-0.47, -0.53), (-0.05, -0.95)],
    }
)

# A grey disc at the front of every shape shows which way it points; in radii of the shape.
HEAD_PLACE = 0.6
HEAD_RADIUS = 0.4


@dataclass(frozen=True)
class Path:
    """Path of a shape during a clip. Every motion is one of these with most fields at zero.

    Attributes:
        start: Place of the centre at time 0, core units from the centre of the frame.
        stop: Place of the centre at time 1, before orbit and bounce are added.
        radius: Circumradius at time 0 and at time 1; it changes geometrically between them.
        angle: Orientation at time 0, radians.
        turns: Revolutions of the shape about its own centre during the clip, signed.
        orbit: Radius of a circular path about the line from start to stop.
        laps: Revolutions on that circle during the clip, signed.
        bounce: Height of a bounce.
        bounces: How many bounces the clip shows.
        phase: Where orbit and bounce begin, in revolutions.
    """

    start: tuple[float, float]
    stop: tuple[float, float]
    radius: tuple[float, float]
    angle: float
    turns: float = 0.0
    orbit: float = 0.0
    laps: float = 0.0
    bounce: float = 0.0
    bounces: float = 0.0
    phase: float = 0.0

    def poses(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return x, y, radius and angle at each time.

        Args:
            times: (T,) in [0, 1], 0 the start of the clip and 1 its end.

        Returns:
            (T, 4) float64.
        """
        turn = 2 * np.pi * (self.phase + self.laps * times)
        height = self.bounce * np.abs(np.sin(np.pi * (self.phase + self.bounces * times)))
        x = self.start[0] + (self.stop[0] - self.start[0]) * times + self.orbit * np.cos(turn)
        y = self.start[1] + (self.stop[1] - self.start[1]) * times + self.orbit * np.sin(turn) - height
        radius = self.radius[0] * (self.radius[1] / self.radius[0]) ** times
        return np.stack([x, y, radius, self.angle + 2 * np.pi * self.turns * times], axis=1)


@dataclass(frozen=True)
class Scene:
    """Scene of a clip, which can be drawn at any time and size.

    Attributes:
        label: The class shown.
        path: How the shape moves.
        shape: Key of `SHAPES`.
        fill: RGB of the shape.
        head: RGB of its head.
        noise: Standard deviation of the sensor noise, grey levels.
        seed: Seeds background and noise.
    """

    label: Label
    path: Path
    shape: str
    fill: tuple[int, int, int]
    head: tuple[int, int, int]
    noise: float
    seed: int


def sample_scene(seed: int, label: Label) -> Scene:
    """Draw a scene of the given class at random.

    Args:
        seed: Any non-negative integer; equal seeds give equal scenes.
        label: The class to show.
    """
    rng = np.random.default_rng((seed, 0))
    hue = _HUES[label.colour] + rng.uniform(-6, 6)
    fill = _rgb(hue, rng.uniform(0.82, 1.0), rng.uniform(0.72, 1.0))
    grey = int(rng.choice([rng.integers(0, 40), rng.integers(215, 256)]))
    return Scene(
        label=label,
        path=_sample_path(rng, label.motion),
        shape=str(rng.choice(list(SHAPES))),
        fill=fill,
        head=(grey, grey, grey),
        noise=float(rng.uniform(0, 6)),
        seed=seed,
    )


def frame_times(num_frames: int) -> NDArray[np.float64]:
    """Return the middle of each of ``num_frames`` equal parts of the clip, (num_frames,) in [0, 1]."""
    return (np.arange(num_frames) + 0.5) / num_frames


def render(
    scene: Scene,
    times: NDArray[np.float64],
    *,
    size: tuple[int, int] = (CORE, CORE),
    scale: float = 1.0,
    shift: tuple[float, float] = (0.0, 0.0),
) -> NDArray[np.uint8]:
    """Draw a scene.

    Args:
        scene: What to draw.
        times: (T,) in [0, 1]: when each frame is taken.
        size: Height and width of the canvas in pixels.
        scale: Pixels per core unit.
        shift: How far the middle of the action lies right of and below the middle of the canvas, pixels.

    Returns:
        (T, height, width, 3) uint8 RGB.
    """
    rng = np.random.default_rng((scene.seed, 1))
    backdrop = _background(rng, size)
    grain = _grain(size, scene.noise)
    middle = np.array([size[1] / 2 + shift[0], size[0] / 2 + shift[1]])
    frames = np.empty((len(times), *size, 3), dtype=np.uint8)
    for frame, (x, y, radius, angle) in zip(frames, scene.path.poses(times), strict=True):
        canvas = backdrop.copy()
        _draw(canvas, scene, middle + scale * np.array([x, y]), scale * radius, angle)
        top, left = rng.integers(0, _GRAIN_MARGIN, size=2)
        cv2.add(canvas, grain[top : top + size[0], left : left + size[1]], dst=frame, dtype=cv2.CV_8U)
    return frames


def _sample_path(rng: np.random.Generator, motion: str) -> Path:
    """Draw the path of one motion; parameters that do not define the motion are random."""
    angle = rng.uniform(0, 2 * np.pi)
    radius = rng.uniform(26, 40)
    sign = rng.choice([-1.0, 1.0])
    if motion in _DIRECTIONS:
        along, across = np.array(_DIRECTIONS[motion]), np.array(_DIRECTIONS[motion])[::-1]
        travel = rng.uniform(112, 155)
        slack = CORE / 2 - 0.6 * radius - travel / 2
        middle = along * rng.uniform(-1, 1) * max(slack, 0.0) + across * rng.uniform(-60, 60)
        # A slant of up to eight degrees.
        half = travel / 2 * (along + across * rng.uniform(-0.14, 0.14))
        return Path(_point(middle - half), _point(middle + half), (radius, radius), angle)
    if motion in {"growing", "shrinking"}:
        large = rng.uniform(46, 62)
        small = large / rng.uniform(2.3, 3.2)
        spot = _point(rng.uniform(-45, 45, size=2))
        return Path(spot, spot, (small, large) if motion == "growing" else (large, small), angle)
    if motion == "rotating":
        spot = _point(rng.uniform(-55, 55, size=2))
        radius = rng.uniform(40, 60)
        return Path(spot, spot, (radius, radius), angle, turns=sign * rng.uniform(0.8, 1.4))
    if motion == "circling":
        spot = _point(rng.uniform(-22, 22, size=2))
        radius, phase = rng.uniform(24, 36), rng.uniform(0, 1)
        laps = sign * rng.uniform(1.0, 1.5)
        return Path(spot, spot, (radius, radius), angle, orbit=rng.uniform(46, 62), laps=laps, phase=phase)
    if motion == "bouncing":
        floor, drift = rng.uniform(45, 75), rng.uniform(-20, 20)
        x = rng.uniform(-55, 55)
        bounce, bounces, phase = rng.uniform(85, 120), rng.uniform(2.0, 3.0), rng.uniform(0, 1)
        return Path(
            (x - drift, floor), (x + drift, floor), (radius, radius), angle, bounce=bounce, bounces=bounces, phase=phase
        )
    spot = _point(rng.uniform(-70, 70, size=2))
    radius = rng.uniform(26, 58)
    return Path(spot, spot, (radius, radius), angle)


_DIRECTIONS = MappingProxyType({"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)})

# How far the noise pattern may move from frame to frame, pixels.
_GRAIN_MARGIN = 48


def _point(xy: NDArray[np.float64]) -> tuple[float, float]:
    return float(xy[0]), float(xy[1])


def _rgb(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    hsv = np.array([[[hue % 360, saturation, value]]], dtype=np.float32)
    red, green, blue = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0, 0] * 255
    return int(red), int(green), int(blue)


def _draw(canvas: NDArray[np.uint8], scene: Scene, centre: NDArray[np.float64], radius: float, angle: float) -> None:
    cos, sin = np.cos(angle), np.sin(angle)
    # Rows are points, so this is the transposed rotation matrix.
    turn = radius * np.array([[cos, sin], [-sin, cos]])
    # OpenCV takes sub-pixel places as integers in sixteenths.
    outline = np.round(16 * (centre + np.array(SHAPES[scene.shape]) @ turn)).astype(np.int32)
    head = np.round(16 * (centre + np.array([HEAD_PLACE, 0.0]) @ turn)).astype(int)
    cv2.fillPoly(canvas, [outline], scene.fill, lineType=cv2.LINE_AA, shift=4)
    cv2.circle(canvas, (int(head[0]), int(head[1])), round(16 * HEAD_RADIUS * radius), scene.head, -1, cv2.LINE_AA, 4)


def _background(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw a still texture of low saturation, so that only the shape has colour."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32) / height
    kind = rng.choice(["cloud", "stripes", "checks", "slope"])
    if kind == "cloud":
        cells = int(rng.integers(3, 20))
        coarse = rng.uniform(-1, 1, size=(cells, cells)).astype(np.float32)
        texture = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    elif kind == "slope":
        texture = 2 * (x * rng.uniform(-1, 1) + y * rng.uniform(-1, 1))
    else:
        angle, frequency = rng.uniform(0, np.pi), 2 * np.pi * rng.uniform(2, 9)
        cos, sin = float(frequency * np.cos(angle)), float(frequency * np.sin(angle))
        texture = np.sin(x * cos + y * sin)
        if kind == "checks":
            texture = np.sign(texture * np.sin(y * cos - x * sin))
    grey = rng.uniform(50, 205) + rng.uniform(8, 40) * texture + 4 * _white_noise(size)[:height, :width, 0]
    tint = rng.uniform(-14, 14, size=3).astype(np.float32)
    canvas: NDArray[np.uint8] = np.clip(grey[..., None] + tint, 0, 255).astype(np.uint8)
    return canvas


def _grain(size: tuple[int, int], sigma: float) -> NDArray[np.int16]:
    return (sigma * _white_noise(size)).astype(np.int16)


@lru_cache(maxsize=4)
def _white_noise(size: tuple[int, int]) -> NDArray[np.float32]:
    """Draw the noise pattern, once for all scenes, since it takes longer than a scene."""
    shape = (size[0] + _GRAIN_MARGIN, size[1] + _GRAIN_MARGIN, 3)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
