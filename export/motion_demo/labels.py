"""The label set: every colour with every motion, and the pairs that training never sees."""

from __future__ import annotations

from itertools import product
from types import MappingProxyType
from typing import NamedTuple


class Label(NamedTuple):
    """Class of the demo: the shape's colour and motion."""

    colour: str
    motion: str

    @property
    def text(self) -> str:
        """Text of the class, such as ``a red shape moving left``."""
        return f"{_coloured_shape(self.colour)} {MOTIONS[self.motion]}"


def _coloured_shape(colour: str) -> str:
    return f"{'an' if colour[0] in 'aeiou' else 'a'} {colour} shape"


COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple")

MOTIONS = MappingProxyType(
    {
        "left": "moving left",
        "right": "moving right",
        "up": "moving up",
        "down": "moving down",
        "growing": "growing",
        "shrinking": "shrinking",
        "rotating": "rotating",
        "circling": "circling",
        "bouncing": "bouncing",
        "still": "standing still",
    }
)

LABELS = tuple(Label(colour, motion) for colour, motion in product(COLOURS, MOTIONS))

# Every motion once and every colour at least once, so that zero-shot accuracy is about all of them.
HELD_OUT = (
    Label("red", "left"),
    Label("cyan", "right"),
    Label("green", "up"),
    Label("purple", "down"),
    Label("yellow", "growing"),
    Label("orange", "shrinking"),
    Label("blue", "rotating"),
    Label("red", "circling"),
    Label("green", "bouncing"),
    Label("purple", "still"),
)

SEEN = tuple(label for label in LABELS if label not in HELD_OUT)

# Texts with one half of a label, by which the text tower learns each word on its own.
COLOUR_TEXTS = tuple(map(_coloured_shape, COLOURS))
MOTION_TEXTS = tuple(f"a shape {phrase}" for phrase in MOTIONS.values())
