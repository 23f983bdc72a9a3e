"""Windows over a stream: which frames they take, what they share, and where a stream has holes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_runtime.errors import FramesError
from xclip_runtime.results import Gap
from xclip_runtime.streaming.windows import StreamWindow
from xclip_runtime.video import FrameTransform, uniform_indices

SIZE = 8
TRANSFORM = FrameTransform("hf", SIZE)


def cut(window, hop, num_frames=4, fps=None):
    return StreamWindow(window, hop, num_frames=num_frames, transform=TRANSFORM, fps=fps)


def square(number):
    return np.full((SIZE, SIZE, 3), number % 256, np.uint8)


def feed(windows, times):
    """Push frames that show their own number; return what came out, without and with the end of the stream."""
    done = [w for number, t in enumerate(times) for w in windows.push(square(number), t)]
    return done, done + windows.flush()


def numbers(window):
    return [int(s[0, 0, 0]) for s in window.prepared]


def span(window):
    return (round(window.start, 6), round(window.end, 6))


@settings(max_examples=60, deadline=None)
@given(
    frames=st.integers(1, 120), num_frames=st.integers(1, 16), fps=st.sampled_from([5.0, 24.0, 25.0, 29.97, 30.0, 60.0])
)
def test_a_window_as_long_as_the_video_takes_the_frames_of_uniform_sampling(frames, num_frames, fps):
    _, windows = feed(cut(frames / fps, frames / fps, num_frames, fps), np.arange(frames) / fps)

    assert numbers(windows[0]) == uniform_indices(frames, num_frames).tolist()
    assert len(windows) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.01, 0.4), min_size=30, max_size=80), st.integers(1, 8), st.floats(0.25, 2.0))
def test_whatever_the_rate_windows_keep_their_grid_and_their_frames_lie_in_them(steps, num_frames, ratio):
    times = np.cumsum(steps)
    window = 2.0
    hop = max(ratio * window, window / num_frames)

    whole, _ = feed(cut(window, hop, num_frames), times)

    for number, w in enumerate(whole):
        assert w.start == pytest.approx(times[0] + number * hop)
        assert w.end - w.start == pytest.approx(window)
        assert len(w.prepared) == num_frames
        assert numbers(w) == sorted(numbers(w))
        # A moment may be served by the frame before it or the first after it: the steps are at most 0.4 s.
        moments = w.start + (np.arange(num_frames) + 0.5) * window / num_frames
        assert np.abs(times[numbers(w)] - moments).max() <= 0.8


def test_windows_follow_each_other_by_the_hop():
    whole, _ = feed(cut(2, 1), np.arange(100) / 10)

    assert [span(w) for w in whole[:3]] == [(0, 2), (1, 3), (2, 4)]
    assert numbers(whole[0]) == [2, 7, 12, 17]
    assert numbers(whole[1]) == [12, 17, 22, 27]


def test_overlapping_windows_share_their_frames_and_each_frame_is_prepared_once():
    windows, prepared = cut(2, 1, num_frames=8), []
    done = []
    for number in range(100):
        done += windows.advance(number / 10, lambda number=number: prepared.append(number) or square(number))

    assert done[0].prepared[4] is done[1].prepared[0]
    assert len(prepared) == len(set(prepared))
    # 4 new frames a window and the one at its start, of the 10 that come.
    assert len(prepared) <= 5 * 10 + 4


def test_a_window_is_ready_with_its_last_sampled_frame_not_later():
    windows = cut(2, 2)
    ready = [number for number in range(40) if windows.push(square(number), number / 10)]

    assert ready == [17, 37]


def test_between_windows_that_do_not_touch_nothing_is_prepared():
    whole, _ = feed(cut(1, 3), np.arange(90) / 10)

    assert [span(w) for w in whole] == [(0, 1), (3, 4), (6, 7)]


def test_the_end_of_a_stream_gives_the_rest_as_a_shorter_window():
    whole, all_of_it = feed(cut(4, 2), np.arange(110) / 10)

    assert [span(w) for w in whole] == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert span(all_of_it[-1]) == (8, 11)
    assert len(all_of_it) == 5


def test_the_end_of_a_stream_gives_nothing_twice():
    whole, all_of_it = feed(cut(4, 2), np.arange(100) / 10)

    assert span(whole[-1]) == (6, 10)
    assert all_of_it == whole


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_a_stream_shorter_than_a_window_is_one_window(frames):
    whole, all_of_it = feed(cut(10, 5, num_frames=8), np.arange(frames) / 10)

    assert whole == []
    assert len(all_of_it) == 1
    assert set(numbers(all_of_it[0])) <= set(range(frames))
    assert len(all_of_it[0].prepared) == 8


def test_no_frame_gives_no_window():
    assert cut(1, 1).flush() == []


def test_frames_that_come_late_or_twice_are_ignored():
    times = [0, 0.1, 0.2, 0.2, 0.15, *np.arange(3, 30) / 10]

    whole, _ = feed(cut(2, 2), times)

    assert [span(w) for w in whole] == [(0, 2)]
    assert {3, 4}.isdisjoint(numbers(whole[0]))


@pytest.mark.parametrize("jump", [100.0, -100.0])
def test_behind_a_hole_or_a_clock_that_is_set_back_windows_begin_anew_and_say_so(jump):
    before, after = np.arange(25) / 10, 2.5 + jump + np.arange(25) / 10

    whole, _ = feed(cut(2, 1), [*before, *after])

    first, second = whole
    assert (span(first), first.gap) == ((0, 2), None)
    assert span(second) == (2.5 + jump, 4.5 + jump)
    assert second.gap == Gap(pytest.approx(2.4), pytest.approx(2.5 + jump))
    assert min(numbers(second)) >= 25


def test_a_window_says_which_frames_of_the_stream_it_looked_through():
    whole, _ = feed(cut(2, 2), np.arange(40) / 10)

    assert [w.numbers for w in whole] == [range(18), range(20, 38)]


@pytest.mark.parametrize(("window", "hop"), [(0, 1), (-1, 1), (float("nan"), 1), (2, 0), (2, 0.4), (2, float("inf"))])
def test_windows_that_make_no_sense_are_refused(window, hop):
    with pytest.raises(ValueError, match=r"window|hop"):
        cut(window, hop)


@pytest.mark.parametrize("t", [float("nan"), float("inf")])
def test_a_frame_without_a_time_is_refused(t):
    with pytest.raises(ValueError, match="seconds"):
        cut(1, 1).push(square(0), t)


def test_a_frame_of_another_shape_is_refused():
    with pytest.raises(FramesError, match="uint8 RGB"):
        cut(1, 1).push(np.zeros((SIZE, SIZE), np.uint8), 0.0)


def test_a_pushed_frame_may_be_written_over():
    windows, frame = cut(1, 1), np.zeros((SIZE, SIZE, 3), np.uint8)
    done = []
    for number in range(12):
        frame[:] = number
        done += windows.push(frame, number / 10)

    assert numbers(done[0]) == [1, 3, 6, 8]
