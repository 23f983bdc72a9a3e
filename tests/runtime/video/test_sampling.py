import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_runtime.errors import VideoError
from xclip_runtime.video.sampling import given as given_frames
from xclip_runtime.video.sampling import uniform, uniform_indices

totals = st.integers(1, 10**7)
counts = st.integers(1, 128)


@given(totals, counts)
def test_uniform_indices_are_sorted_and_in_range(total, num_frames):
    indices = uniform_indices(total, num_frames)
    assert indices.dtype == np.int64
    assert indices.shape == (num_frames,)
    assert np.all(np.diff(indices) >= 0)
    assert indices[0] >= 0
    assert indices[-1] < total


@given(st.integers(1, 4999), st.sampled_from([8, 16, 32]))
@settings(max_examples=300)
def test_uniform_indices_are_those_of_the_original_float_formula(total, num_frames):
    average = total / num_frames
    original = [int(i * average + average / 2) for i in range(num_frames)]
    assert uniform_indices(total, num_frames).tolist() == original


@given(totals, counts)
def test_uniform_indices_mirror_when_the_video_is_played_backwards(total, num_frames):
    # Where a segment's centre falls between two frames, the later one is taken: mirrored, that is one frame less.
    indices = uniform_indices(total, num_frames)
    mirrored = total - 1 - indices[::-1]
    assert np.all((indices - mirrored >= 0) & (indices - mirrored <= 1))


def test_uniform_indices_of_known_lengths():
    assert uniform_indices(32, 32).tolist() == list(range(32))
    assert uniform_indices(100, 32)[:6].tolist() == [1, 4, 7, 10, 14, 17]
    assert uniform_indices(1, 4).tolist() == [0, 0, 0, 0]
    assert len(set(uniform_indices(20, 32).tolist())) == 20


@pytest.mark.parametrize(("total", "num_frames"), [(0, 8), (-3, 8), (8, 0)])
def test_uniform_indices_of_nothing_are_refused(total, num_frames):
    with pytest.raises(ValueError, match="at least 1"):
        uniform_indices(total, num_frames)


@given(totals, st.integers(1, 32), st.integers(1, 8))
def test_temporal_clips_dealt_out_in_turn_keep_to_their_segments(total, num_frames, clips):
    # The original draws from segment i at random: [i * N / T, (i + 1) * N / T).
    dealt = uniform_indices(total, num_frames * clips).reshape(num_frames, clips)
    segment = np.arange(num_frames)[:, None]
    assert np.all(dealt >= segment * total // num_frames)
    assert np.all(dealt * num_frames < (segment + 1) * total)


def test_the_callers_own_frames_are_taken_in_the_callers_order():
    assert given_frames([5, 2, 2])(np.arange(9) / 30, 3).tolist() == [5, 2, 2]


def test_the_callers_own_frames_must_exist_and_be_as_many_as_needed():
    times = np.arange(9) / 30
    with pytest.raises(VideoError, match="frame 9 is asked for: give 0 to 8"):
        given_frames([0, 9])(times, 2)
    with pytest.raises(VideoError, match="frame -1"):
        given_frames([-1, 3])(times, 2)
    with pytest.raises(ValueError, match="exactly that many"):
        given_frames([1, 2])(times, 3)


def test_uniform_sampling_looks_at_the_number_of_frames_only():
    times = np.array([0.0, 0.1, 5.0, 9.0])
    assert uniform(times, 2).tolist() == uniform_indices(4, 2).tolist()
