"""The contact sheet shows the right frames at the right places, and a gap where a file is gone."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest

from xclip_runtime.search import Hit, SearchResult, contact_sheet
from xclip_runtime.search.contact_sheet import clock, hit_frames

# The package offers the function of the same name in its place.
layout = sys.modules["xclip_runtime.search.contact_sheet"]


def a_result(hits, query="a blue shape growing"):
    return SearchResult(query, tuple(hits), scored=3, windows=9, timings_ms={})


def card(sheet, number):
    """Cut the card of a hit out of the sheet."""
    row, column = divmod(number, 2)
    height, width = layout._CARD_HEIGHT + 12, layout._CARD_WIDTH + 12
    top, left = layout._HEADER + row * height, layout._MARGIN + column * width
    return sheet[top : top + height - 12, left : left + width - 12]


def test_every_hit_shows_its_own_frames_in_the_order_of_time(film):
    hits = [Hit(str(film), start, start + 2.0, 5.0, 0.5) for start in (0.0, 2.0, 4.0)]

    sheet = contact_sheet(a_result(hits))

    assert (sheet.dtype, sheet.shape[2]) == (np.uint8, 3)
    for number, hit in enumerate(hits):
        frames = hit_frames(hit)
        assert frames.shape == (4, 132, 176, 3)
        assert not np.array_equal(frames[0], frames[3]) or number == 2
        strip = card(sheet, number)[12 : 12 + 132, 12:]
        for place, frame in enumerate(frames):
            np.testing.assert_array_equal(strip[:, place * 179 : place * 179 + 176], frame[..., ::-1])


@pytest.mark.parametrize(
    ("start", "end", "colours"),
    [(0.0, 2.0, "rrrr"), (2.0, 4.0, "bbbb"), (4.0, 6.0, "gggg"), (0.0, 6.0, "rbbg")],
)
def test_the_frames_are_of_the_moment_and_of_no_other(film, start, end, colours):
    frames = hit_frames(Hit(str(film), start, end, 1.0, 1.0)).astype(int)

    # The strongest colour anywhere in a frame.
    strength = (frames - np.median(frames, axis=3, keepdims=True)).reshape(4, -1, 3).max(axis=1)
    assert "".join("rgb"[channel] for channel in strength.argmax(axis=1)) == colours


def test_a_frame_keeps_its_colours_and_its_shape(clips):
    frame = hit_frames(Hit(str(clips["a blue shape growing"]), 0.0, 2.0, 1.0, 1.0))[3]

    # 224 by 256 fills a box of 132 by 176 from top to bottom, with a bar at each side.
    assert (frame[:, :12] == frame[0, 0]).all()
    assert not (frame[:, 20:24] == frame[0, 0]).all()
    blue = (frame[..., 2].astype(int) - frame[..., 0]) > 80
    assert blue.mean() > 0.01


def test_a_file_that_is_gone_gets_its_place_and_a_line(film):
    gone = Hit("/nowhere/film.mp4", 0.0, 1.0, 9.0, 0.5)
    there = Hit(str(film), 0.0, 2.0, 5.0, 0.5)

    sheet = contact_sheet(a_result([gone, there]))

    strip = card(sheet, 0)[12:144, 12:-12]
    assert (strip == np.array(layout._DARK)).all(axis=2).mean() > 0.9
    assert (strip > 200).any()
    np.testing.assert_array_equal(card(sheet, 1)[12:144, 12:188], hit_frames(there)[0][..., ::-1])


@pytest.mark.parametrize("hits", [0, 1, 2, 5])
def test_any_number_of_hits_fits(film, hits):
    sheet = contact_sheet(a_result([Hit(str(film), 0.0, 2.0, 5.0, 0.5)] * hits))

    assert cv2.imencode(".png", sheet)[0]
    assert sheet.shape[0] >= 100


@pytest.mark.parametrize("opencv", [4, 5])
@pytest.mark.parametrize("text", ["x" * 500, "日本語 ü 😀", "two\nlines", "\udcff", "a"])
def test_text_stays_inside_the_sheet_whatever_it_is(monkeypatch, opencv, text):
    if opencv == 4:
        monkeypatch.delattr(cv2, "FontFace", raising=False)
    elif not hasattr(cv2, "FontFace"):
        pytest.skip("this OpenCV has no fonts of its own")
    hit = Hit(f"/nowhere/{text}/{text}.mp4", 0.0, 1.0, -12.345, 0.5)

    sheet = contact_sheet(a_result([hit], text))

    paper = np.array(layout._PAPER)
    assert (sheet[:, -20:] == paper).all()
    assert (sheet[:, :20] == paper).all()
    assert (card(sheet, 0)[:, -6:] == 255).all()
    assert (sheet[20:60] < 100).any()


def test_as_many_columns_as_are_asked_for(film):
    hits = [Hit(str(film), 0.0, 2.0, 5.0, 0.5)] * 3

    assert contact_sheet(a_result(hits), columns=1).shape[0] > contact_sheet(a_result(hits), columns=3).shape[0]
    with pytest.raises(ValueError, match="columns"):
        contact_sheet(a_result(hits), columns=0)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0:00.0"),
        (0.96, "0:01.0"),
        (59.96, "1:00.0"),
        (75.25, "1:15.2"),
        (3600, "1:00:00.0"),
        (7325.04, "2:02:05.0"),
    ],
)
def test_times_are_those_of_a_player(seconds, shown):
    assert clock(seconds) == shown
