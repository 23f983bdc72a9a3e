"""Contact sheet of a search: a few frames of every hit, with its score, file and time."""

from __future__ import annotations

import math
import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from xclip_runtime.errors import XClipError
from xclip_runtime.util.arguments import check_count
from xclip_runtime.video import read_clip

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xclip_runtime.search.video_index import Hit, SearchResult

FRAMES = 4
"""Frames of a hit, evenly spread over it, since a single one shows no motion."""

# Pixels.
_FRAME_HEIGHT, _FRAME_WIDTH = 132, 176
_GAP, _MARGIN, _PADDING = 3, 28, 12
_HEADER, _CAPTION = 92, 58
_STRIP = FRAMES * _FRAME_WIDTH + (FRAMES - 1) * _GAP
_CARD_WIDTH, _CARD_HEIGHT = _STRIP + 2 * _PADDING, _FRAME_HEIGHT + _CAPTION + 2 * _PADDING

# Blue, green, red, as OpenCV draws.
_PAPER, _CARD, _DARK = (240, 238, 236), (255, 255, 255), (38, 34, 32)
_INK, _GREY, _ACCENT = (40, 34, 30), (128, 120, 114), (168, 92, 28)

_REGULAR, _BOLD = 400, 650


def contact_sheet(result: SearchResult, columns: int = 2) -> NDArray[np.uint8]:
    """Draw the hits of a search, best first, row by row: uint8 BGR (H, W, 3), for ``cv2.imwrite``.

    Frames are read from the files again; the place of a missing file shows the error.
    """
    check_count("columns", columns)
    columns = min(columns, max(len(result.hits), 1))
    rows = math.ceil(len(result.hits) / columns)
    width = max(2 * _MARGIN + columns * _CARD_WIDTH + (columns - 1) * _PADDING, 900)
    height = _HEADER + rows * (_CARD_HEIGHT + _PADDING) + _MARGIN - _PADDING
    sheet = np.full((height, width, 3), _PAPER, np.uint8)
    _write(sheet, result.query, (_MARGIN, 50), 30, colour=_INK, room=width - 2 * _MARGIN, weight=_BOLD)
    scored = "every window" if result.scored == result.windows else f"{result.scored} of {result.windows} windows"
    found = f"{len(result.hits)} hits, exact scores of {scored}" if result.hits else "the index is empty"
    _write(sheet, found, (_MARGIN, 76), 16, colour=_GREY, room=width - 2 * _MARGIN)
    for number, hit in enumerate(result.hits):
        row, column = divmod(number, columns)
        top = _HEADER + row * (_CARD_HEIGHT + _PADDING)
        left = _MARGIN + column * (_CARD_WIDTH + _PADDING)
        _draw_card(sheet[top : top + _CARD_HEIGHT, left : left + _CARD_WIDTH], number + 1, hit)
    return sheet


def hit_frames(hit: Hit, count: int = FRAMES) -> NDArray[np.uint8]:
    """Read frames of a hit, evenly spread over it and letterboxed: uint8 RGB (count, 132, 176, 3)."""
    return read_clip(hit.video, num_frames=count, transform=_fit, start=hit.start, end=hit.end).frames


def clock(seconds: float) -> str:
    """Format seconds as players do, to a tenth: 1:02:03.4."""
    tenths = round(10 * seconds)
    minutes, tenths = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    head = f"{hours}:{minutes:02}" if hours else f"{minutes}"
    return f"{head}:{tenths // 10:02}.{tenths % 10}"


def _fit(frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Scale a frame to fit the box, and centre it."""
    height, width = frame.shape[:2]
    scale = min(_FRAME_HEIGHT / height, _FRAME_WIDTH / width)
    height, width = max(round(scale * height), 1), max(round(scale * width), 1)
    box = np.full((_FRAME_HEIGHT, _FRAME_WIDTH, 3), _DARK[::-1], np.uint8)
    top, left = (_FRAME_HEIGHT - height) // 2, (_FRAME_WIDTH - width) // 2
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    box[top : top + height, left : left + width] = cv2.resize(frame, (width, height), interpolation=interpolation)
    return box


def _draw_card(card: NDArray[np.uint8], number: int, hit: Hit) -> None:
    card[...] = _CARD
    strip = card[_PADDING : _PADDING + _FRAME_HEIGHT, _PADDING : _PADDING + _STRIP]
    try:
        for index, frame in enumerate(hit_frames(hit)):
            left = index * (_FRAME_WIDTH + _GAP)
            strip[:, left : left + _FRAME_WIDTH] = frame[:, :, ::-1]
    except XClipError as error:
        strip[...] = _DARK
        _write(strip, f"no frames: {error}", (16, _FRAME_HEIGHT // 2 + 5), 15, colour=_PAPER, room=_STRIP - 32)
    baseline = 2 * _PADDING + _FRAME_HEIGHT + 14
    score = f"{hit.logit:.2f}"
    score_left = _CARD_WIDTH - _PADDING - _text_width(score, 20, _BOLD)
    _write(card, score, (score_left, baseline), 20, colour=_ACCENT, room=_CARD_WIDTH, weight=_BOLD)
    room = score_left - 2 * _PADDING
    _write(card, f"{number}   {Path(hit.video).name}", (_PADDING, baseline), 18, colour=_INK, room=room, weight=_BOLD)
    folder = os.path.dirname(hit.video)  # noqa: PTH120 - keeps the spelling
    place = f"{clock(hit.start)} to {clock(hit.end)}   {folder}"
    _write(card, place, (_PADDING, baseline + 24), 15, colour=_GREY, room=_STRIP)


def _write(
    image: NDArray[np.uint8],
    text: str,
    origin: tuple[int, int],
    size: int,
    *,
    colour: Sequence[int],
    room: int,
    weight: int = _REGULAR,
) -> None:
    """Write one line from its baseline, shortened in the middle to ``room`` pixels."""
    # A file name may hold any bytes, and line breaks.
    text = "".join(character if character.isprintable() else "?" for character in text)
    short, kept = text, len(text)
    while kept > 1 and (width := _text_width(short, size, weight)) > room:
        kept = min(kept - 1, kept * room // width)
        short = f"{text[: (kept + 1) // 2]}...{text[len(text) - kept // 2 :]}"
    if hasattr(cv2, "FontFace"):
        cv2.putText(image, short, origin, colour, _font(), size, weight)
    else:
        cv2.putText(image, short, origin, _HERSHEY, size / 34, colour, _thickness(weight), cv2.LINE_AA)


_HERSHEY = cv2.FONT_HERSHEY_SIMPLEX


def _text_width(text: str, size: int, weight: int) -> int:
    """Measure a text in pixels. The fonts of OpenCV 5 are Unicode; OpenCV 4 draws question marks outside of ASCII."""
    if hasattr(cv2, "FontFace"):
        left, _, width, _ = cv2.getTextSize((0, 0), text, (0, 0), _font(), size, weight)
        return int(left + width)
    (width, _), _ = cv2.getTextSize(text, _HERSHEY, size / 34, _thickness(weight))
    return int(width)


@cache
def _font() -> Any:
    return cv2.FontFace("sans")


def _thickness(weight: int) -> int:
    return 1 if weight < _BOLD else 2
