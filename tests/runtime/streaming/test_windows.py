"""Windows over a stream: which frames they take, what they share, and where a stream has holes."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_runtime.errors import FramesError
from xclip_runtime.results import Gap
from xclip_runtime.streaming.windows import MAX_KEPT_FRAMES, StreamWindow
from xclip_runtime.video import FrameTransform, uniform_indices

SIZE = 8
TRANSFORM = FrameTransform("hf", SIZE)


ROUNDING = 5e-4


def cut(window, hop, num_frames=4, fps=None, ends_after=0.0):
    return StreamWindow(window, hop, num_frames=num_frames, transform=TRANSFORM, fps=fps, ends_after=ends_after)


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


WINDOW = 2.0
STEPS = {
    "constant": st.just(0.04),
    "variable": st.floats(0.001, 0.3),
    "short hole": st.floats(0.3, WINDOW),
    "long hole": st.floats(WINDOW * 1.01, 3 * WINDOW),
    "late": st.floats(-0.3, 0.0),
    "clock set back": st.floats(-100.0, -WINDOW * 1.01),
}
EVENLY = st.tuples(st.just(0.04), st.integers(1, 60))
ANYHOW = st.tuples(st.one_of(*STEPS.values()), st.integers(1, 4))
JITTER = st.lists(st.floats(0.02, 0.06), min_size=1, max_size=40).map(lambda steps: [(step, 1) for step in steps])
TIMES = st.lists(st.one_of(EVENLY.map(lambda run: [run]), ANYHOW.map(lambda run: [run]), JITTER), max_size=10).map(
    lambda runs: np.cumsum([17.0, *(step for run in runs for step, times in run for _ in range(times))])
)


def stretches(times):
    """Split a stream at its gaps, without the frames that are ignored: numbers and times of the frames."""
    found, last, number = [], -math.inf, 0
    for t in times:
        if -WINDOW <= t - last <= 0:
            continue
        if abs(t - last) > WINDOW:
            found.append([])
        found[-1].append((number, t))
        last, number = t, number + 1
    return found


def expected(times, hop, num_frames):
    """Windows by their definition: the last frame at or before each moment, while the last one is on show."""
    windows, interval = [], 0.0
    for stretch in stretches(times):
        origin = stretch[0][1]
        if len(stretch) > 1:
            interval = stretch[-1][1] - stretch[-2][1]
        moments = (np.arange(num_frames) + 0.5) * WINDOW / num_frames + ROUNDING
        for number in range(10_000):
            if moments[-1] >= stretch[-1][1] - origin + interval - number * hop:
                break
            at = np.searchsorted([t - origin - number * hop for _, t in stretch], moments, side="right") - 1
            windows.append((origin + number * hop, [stretch[i][0] for i in at]))
    return windows


@settings(max_examples=100, deadline=None)
@given(TIMES, st.integers(1, 8), st.floats(0.0, 2.0))
def test_a_slot_shows_the_last_frame_at_or_before_its_moment_whatever_the_times(times, num_frames, ratio):
    hop = max(ratio * WINDOW, WINDOW / num_frames)
    windows = cut(WINDOW, hop, num_frames)
    found, frame = [], square(0)

    # Frames hold their number only up to 255.
    for t in times:
        found += windows.advance(t, lambda: frame)
    found += windows.flush()

    whole = [w for w in found if math.isclose(w.end - w.start, WINDOW)]
    assert [(w.start, list(w.sampled)) for w in whole] == expected(times, hop, num_frames)
    assert found[: len(whole)] == whole
    assert len(found) <= len(whole) + 1


def test_a_slot_inside_a_freeze_shows_what_was_frozen():
    times = [*np.arange(50) / 25, *(1.96 + 1.5 + np.arange(100) / 25)]

    _, windows = feed(cut(2, 0.5, num_frames=8), times)

    for w in windows:
        moments = w.start + (np.arange(8) + 0.5) * (w.end - w.start) / 8
        assert [times[n] for n in w.sampled] == pytest.approx([max(t for t in times if t <= m) for m in moments])


@settings(max_examples=100, deadline=None)
@given(TIMES, st.integers(1, 8))
def test_windows_on_a_grid_share_their_frames(times, num_frames):
    step = WINDOW / num_frames
    windows = cut(WINDOW, step, num_frames)
    found = [w for t in times for w in windows.advance(t, lambda: square(0))]

    for one, next_one in pairwise(found):
        if next_one.gap is None:
            assert one.sampled[1:] == next_one.sampled[:-1]


@pytest.mark.timeout(20)
@pytest.mark.parametrize("window", [0.01, 2.0, 1e300])
def test_no_time_makes_a_frame_cost_more_than_the_windows_it_completes(window):
    windows = cut(window, window / 4, fps=25)
    prepared = []
    times = [0, 1e300, 1e300 + 1, -1e300, 2**53, 2**53 + 2, 5e-324, 1.7e308, -1.7e308, 1e9, 1e9 + 1.9, 1e9 + 1e-7, 0]

    for number, t in enumerate(times):
        done = windows.advance(t, lambda number=number: prepared.append(number) or square(number))
        assert len(done) <= 5
    windows.flush()

    assert len(prepared) == len(set(prepared)) <= len(times)


def test_windows_follow_each_other_by_the_hop():
    whole, _ = feed(cut(2, 1), np.arange(100) / 10)

    assert [span(w) for w in whole[:3]] == [(0, 2), (1, 3), (2, 4)]
    assert numbers(whole[0]) == [2, 7, 12, 17]
    assert numbers(whole[1]) == [12, 17, 22, 27]


def test_overlapping_windows_share_their_frames_and_each_frame_is_prepared_once():
    windows, prepared = cut(2, 1, num_frames=8, ends_after=math.inf), []
    done = []
    for number in range(100):
        done += windows.advance(number / 10, lambda number=number: prepared.append(number) or square(number))

    assert done[0].prepared[4] is done[1].prepared[0]
    assert len(prepared) == len(set(prepared))
    # 4 new frames a window and the one at its start, of the 10 that come.
    assert len(prepared) <= 5 * 10 + 4


def test_a_window_is_ready_with_the_frame_behind_its_last_moment_not_later():
    windows = cut(2, 2)
    ready = [number for number in range(40) if windows.push(square(number), number / 10)]

    assert ready == [18, 38]


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


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(1, 32), st.sampled_from([1.0, 2.0, 3.0]), st.booleans())
def test_the_last_window_is_sampled_as_a_video_of_its_own(frames, num_frames, hop, told):
    fps = 25
    hop = max(hop, 3.0 / num_frames)
    windows = cut(3.0, hop, num_frames, fps, ends_after=frames / fps if told else 0.0)
    _, all_of_it = feed(windows, np.arange(frames) / fps)

    last = all_of_it[-1]
    if last.end - last.start < 2.99:
        own = range(round(last.start * fps), frames)
        assert list(last.sampled) == [own[i] for i in uniform_indices(len(own), num_frames)]
        assert numbers(last) == [number % 256 for number in last.sampled]


def test_the_last_window_of_too_many_frames_is_sampled_from_every_second_one():
    frames = 5000
    windows, held = cut(10, 5, num_frames=32), []
    for number in range(frames):
        windows.advance(number / 1000, lambda number=number: held.append(number) or square(number))

    (last,) = windows.flush()

    wanted = uniform_indices(frames, 32)
    assert np.abs(wanted - last.sampled).max() < frames / 32 / 2
    assert list(last.sampled) == sorted(set(last.sampled))
    assert len(held) < 4 * MAX_KEPT_FRAMES


def test_before_the_end_that_is_told_frames_are_prepared_only_for_windows():
    windows, prepared = cut(2, 2, num_frames=4, ends_after=9.0), []
    for number in range(100):
        windows.advance(number / 10, lambda number=number: prepared.append(number) or square(number))

    assert len([number for number in prepared if number < 70]) <= 5 * 4
    assert set(range(80, 98)) <= set(prepared)


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


@pytest.mark.parametrize(
    ("window", "hop"), [(0, 1), (-1, 1), (1e-12, 1), (float("nan"), 1), (2, 0), (2, 0.4), (2, float("inf"))]
)
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
