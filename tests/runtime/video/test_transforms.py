from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from xclip_runtime.errors import FramesError
from xclip_runtime.video import FrameTransform, prepare_frames

sides = st.integers(8, 700)


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height, width):
    return cv2.GaussianBlur(noise(height, width), (0, 0), 3)


def pillow(frame, size):
    """Preprocess as the video processor of transformers does before normalising."""
    height, width = frame.shape[:2]
    short, long = min(height, width), max(height, width)
    resized = (size, int(size * long / short)) if height <= width else (int(size * long / short), size)
    image = np.asarray(Image.fromarray(frame).resize(resized[::-1], Image.Resampling.BILINEAR))
    top, left = (resized[0] - size) // 2, (resized[1] - size) // 2
    return image[top : top + size, left : left + size]


@given(sides, sides, st.sampled_from([224, 336, 96]))
def test_videox_short_side_is_eight_sevenths_of_the_crop_and_both_sides_round_half_up(height, width, size):
    resized = FrameTransform("videox", size).resized(height, width)
    short = int(256 / 224 * size)
    assert min(resized) == short
    factor = short / min(height, width)
    assert resized == (int(height * factor + 0.5), int(width * factor + 0.5))


@given(sides, sides, st.sampled_from([224, 336, 96]))
def test_hf_short_side_is_the_crop_and_the_long_side_is_truncated(height, width, size):
    resized = FrameTransform("hf", size).resized(height, width)
    assert min(resized) == size
    assert max(resized) == int(size * max(height, width) / min(height, width))


@given(sides, sides)
@settings(max_examples=25, deadline=None)
def test_videox_is_a_plain_cv2_resize_and_a_floor_centre_crop(height, width):
    frame = noise(height, width)
    factor = 256 / min(height, width)
    resized = cv2.resize(frame, (int(width * factor + 0.5), int(height * factor + 0.5)), interpolation=cv2.INTER_LINEAR)
    top, left = (resized.shape[0] - 224) // 2, (resized.shape[1] - 224) // 2
    expected = resized[top : top + 224, left : left + 224]
    np.testing.assert_array_equal(FrameTransform("videox")(frame), expected)


@given(sides, sides)
@settings(max_examples=40, deadline=None)
def test_hf_is_within_one_grey_level_of_pillow(height, width):
    frame = noise(height, width, seed=height)
    ours = FrameTransform("hf")(frame).astype(int)
    assert np.abs(ours - pillow(frame, 224)).max() <= 1


@pytest.mark.parametrize("shape", [(1080, 1920), (1920, 1080), (2160, 3840), (240, 320), (224, 224), (9, 2000)])
def test_hf_is_within_one_grey_level_of_pillow_at_common_and_extreme_sizes(shape):
    frame = noise(*shape)
    difference = np.abs(FrameTransform("hf")(frame).astype(int) - pillow(frame, 224))
    assert difference.max() <= 1
    assert difference.mean() < 0.25


def test_hf_frames_of_other_sizes_before_or_in_other_threads_leave_no_trace():
    frames = [noise(height, width) for height, width in ((700, 900), (64, 300), (224, 224), (500, 90))]
    with ThreadPoolExecutor(4) as pool:
        prepared = list(pool.map(FrameTransform("hf"), frames * 8))
    for frame, square in zip(frames * 8, prepared, strict=True):
        assert np.abs(square.astype(int) - pillow(frame, 224)).max() <= 1


def test_hf_antialiases_and_videox_does_not():
    stripes = np.zeros((1080, 1080, 3), np.uint8)
    stripes[::2] = 255
    assert FrameTransform("hf")(stripes).std() < 5
    assert FrameTransform("videox")(stripes).std() > 50


@pytest.mark.parametrize("profile", ["videox", "hf"])
def test_a_flat_frame_stays_flat(profile):
    frame = np.full((333, 517, 3), (10, 128, 251), np.uint8)
    assert np.all(FrameTransform(profile)(frame) == (10, 128, 251))


@pytest.mark.parametrize("profile", ["videox", "hf"])
def test_mirroring_before_or_after_is_the_same_where_the_crop_is_centred(profile):
    frame = smooth(448, 896)
    transform = FrameTransform(profile)
    mirrored = transform(np.ascontiguousarray(frame[:, ::-1])).astype(int)
    assert np.abs(mirrored - transform(frame)[:, ::-1]).max() <= 1


@pytest.mark.parametrize("profile", ["videox", "hf"])
def test_a_transform_writes_into_the_array_it_is_given(profile):
    out = np.zeros((2, 224, 224, 3), np.uint8)
    frame = noise(100, 120)
    returned = FrameTransform(profile)(frame, out[1])
    assert returned is not None
    assert np.shares_memory(returned, out)
    np.testing.assert_array_equal(out[1], FrameTransform(profile)(frame))
    assert not out[0].any()


def test_a_video_array_is_prepared_frame_by_frame():
    frames = np.stack([noise(60, 80, seed) for seed in range(3)])
    transform = FrameTransform("videox", 32)
    prepared = prepare_frames(frames, transform)
    assert prepared.shape == (3, 32, 32, 3)
    assert prepared.dtype == np.uint8
    for frame, square in zip(frames, prepared, strict=True):
        np.testing.assert_array_equal(square, transform(frame))


def test_frames_of_different_sizes_may_be_mixed():
    assert prepare_frames([noise(60, 80), noise(90, 40)], FrameTransform("hf", 32)).shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    "frames",
    [
        np.zeros((0, 8, 8, 3), np.uint8),
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 3, 8, 8), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
        np.zeros((2, 0, 8, 3), np.uint8),
        ["frame.png"],
        [],
    ],
    ids=["no frame", "float", "channels first", "one frame", "no rows", "not an array", "empty list"],
)
def test_arrays_that_are_no_frames_are_refused_with_the_shape_that_is_wanted(frames):
    with pytest.raises(FramesError, match=r"pass uint8 RGB of shape \(T, H, W, 3\)$"):
        prepare_frames(frames, FrameTransform("videox"))


def test_senseless_transforms_are_refused():
    with pytest.raises(ValueError, match="videox, hf"):
        FrameTransform("clip")
    with pytest.raises(ValueError, match="at least 1"):
        FrameTransform("hf", 0)
