"""Packets that hold the wanted frames and those that they depend on."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.video.frame_index import FrameIndex, Packet


def index_of(*packets):
    """An index of packets that are (pts, kind): K a keyframe, P another, H and h the same, hidden by an edit list."""
    stored = [Packet(pts, place, kind in "KH", kind in "Hh", 100) for place, (pts, kind) in enumerate(packets)]
    return FrameIndex.from_packets(stored, tick=10.0)


def packets_of(index, frames):
    return [(span.start, span.stop) for span in index.spans(frames)]


@pytest.mark.parametrize(
    "packets",
    [
        pytest.param([], id="none"),
        pytest.param([(0, "K"), (0, "P")], id="two at a time"),
        pytest.param([(0, "K"), (None, "P")], id="one without a time"),
        pytest.param([(0, "P"), (1, "K")], id="no keyframe first"),
        pytest.param([(2, "K"), (0, "P"), (1, "P")], id="frames before the first keyframe"),
        pytest.param([(0, "H"), (1, "h")], id="all hidden"),
    ],
)
def test_packets_that_do_not_identify_frames_make_no_index(packets):
    assert index_of(*packets) is None


def test_times_that_go_up_though_the_codec_reorders_are_made_up():
    packets = [Packet(pts, pts, pts == 0, False, 100) for pts in range(5)]
    assert FrameIndex.from_packets(packets, 10.0) is not None
    assert FrameIndex.from_packets(packets, 10.0, reorders=True) is None


def test_frames_are_sorted_by_time():
    index = index_of((0, "K"), (3, "P"), (1, "P"), (2, "P"))
    assert index.times.tolist() == [0, 10, 20, 30]
    assert index.places.tolist() == [0, 2, 3, 1]


def test_packets_that_an_edit_list_hides_are_no_frames_and_are_decoded():
    index = index_of((-2, "H"), (-1, "h"), (0, "P"), (1, "K"), (2, "P"))
    assert index.times.tolist() == [0, 10, 20]
    assert packets_of(index, [0]) == [(0, 3)]
    assert index.expected(index.spans([0])[0]).tolist() == [0]


def test_a_frame_is_decoded_from_the_last_keyframe_on():
    # Stored I P B B, I P B B, I P B B; shown 0 3 1 2, 4 7 5 6, …
    group = [(0, "K"), (3, "P"), (1, "P"), (2, "P")]
    index = index_of(*((4 * number + pts, kind) for number in range(3) for pts, kind in group))
    assert packets_of(index, [2, 9]) == [(0, 4), (8, 11)]
    assert [index.expected(span).tolist() for span in index.spans([2, 9])] == [[0, 1, 2, 3], [8, 9, 11]]
    assert index.share(index.spans([2, 9])) == pytest.approx(7 / 12)
    assert packets_of(index, [0, 4]) == [(0, 1), (4, 5)]
    assert packets_of(index, range(12)) == [(0, 4), (4, 8), (8, 12)]


def test_frames_before_an_open_keyframe_need_the_group_before():
    # Stored I P, I b B P: the last keyframe is shown after the two frames that follow it.
    index = index_of((0, "K"), (1, "P"), (4, "K"), (3, "P"), (2, "P"), (5, "P"))
    assert packets_of(index, [2]) == [(0, 5)]
    (span,) = index.spans([5])
    assert (span.start, span.stop) == (2, 6)
    assert index.expected(span).tolist() == [4, 5]


@given(st.lists(st.sampled_from("KP"), max_size=60), st.data(), st.integers(1, 5))
def test_parts_hold_all_spans_once(kinds, data, most):
    index = index_of(*enumerate(["K", *kinds]))
    spans = index.spans(data.draw(st.sets(st.integers(0, len(kinds)), min_size=1)))
    parts = index.split(spans, most)
    assert [span for part in parts for span in part] == spans
    assert 1 <= len(parts) <= most


def test_parts_take_about_the_same_work():
    index = index_of(*((number, "P" if number % 10 else "K") for number in range(100)))

    def frames(wanted, most):
        return [[frame for span in part for frame in span.frames] for part in index.split(index.spans(wanted), most)]

    assert frames(range(5, 100, 10), 2) == [[5, 15, 25, 35, 45], [55, 65, 75, 85, 95]]
    assert [len(part) for part in frames(range(5, 100, 10), 3)] == [3, 4, 3]
    # One long span takes as much as the ten short ones behind it.
    assert frames([9, *range(10, 100, 10)], 2) == [[9], list(range(10, 100, 10))]


def test_frames_of_one_group_stay_together():
    index = index_of((0, "K"), *((number, "P") for number in range(1, 100)))
    assert [span.frames for part in index.split(index.spans([5, 50, 95]), 4) for span in part] == [[5, 50, 95]]
