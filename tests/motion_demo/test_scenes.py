import numpy as np
import pytest

from motion_demo.labels import COLOURS, LABELS, MOTIONS, Label
from motion_demo.scenes import EVALUATION_SEEDS, TRAINING_SEEDS, VALIDATION_SEEDS, frame_times, render, sample_scene

SEEDS = [EVALUATION_SEEDS.start + offset for offset in range(5)]


def masks(frames):
    """Find the shape, the only strongly coloured part of a frame."""
    return np.ptp(frames.astype(int), axis=-1) > 90


def centroids(frames):
    return np.array([np.argwhere(mask).mean(axis=0)[::-1] for mask in masks(frames)])


def areas(frames):
    return masks(frames).sum(axis=(1, 2))


@pytest.fixture(params=SEEDS)
def clip_of(request):
    """Render a motion; the parameter is the seed."""
    return lambda motion: render(sample_scene(request.param, Label("blue", motion)), frame_times(16))


@pytest.mark.parametrize("label", LABELS[::9], ids=lambda label: label.text)
def test_equal_seeds_give_equal_clips(label):
    first, second = (render(sample_scene(7, label), frame_times(3)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_other_seeds_give_other_clips():
    first, second = (render(sample_scene(seed, LABELS[0]), frame_times(1)) for seed in (7, 8))
    assert (first != second).mean() > 0.5


def test_a_clip_is_uint8_rgb_of_the_size_asked_for():
    clip = render(sample_scene(0, LABELS[0]), frame_times(4), size=(120, 160))
    assert clip.shape == (4, 120, 160, 3)
    assert clip.dtype == np.uint8


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("seed", SEEDS)
def test_the_shape_has_the_colour_of_its_name(colour, seed):
    clip = render(sample_scene(seed, Label(colour, "still")), frame_times(1))
    red, green, blue = np.median(clip[masks(clip)], axis=0)
    order = {
        "red": red > 2 * green and red > 2 * blue,
        "orange": red > 1.4 * green > 1.4 * blue,
        "yellow": min(red, green) > 2 * blue and green > 0.7 * red,
        "green": green > 2 * red and green > 2 * blue,
        "cyan": min(green, blue) > 2 * red,
        "blue": blue > 2 * red and blue > 1.4 * green,
        "purple": blue > red > 2 * green,
    }
    assert order[colour]


@pytest.mark.parametrize(("motion", "axis", "sign"), [("left", 0, -1), ("right", 0, 1), ("up", 1, -1), ("down", 1, 1)])
def test_a_direction_moves_the_shape_half_a_frame_that_way(clip_of, motion, axis, sign):
    path = centroids(clip_of(motion))
    travel = path[-1] - path[0]
    assert sign * travel[axis] > 95
    assert abs(travel[1 - axis]) < 0.2 * abs(travel[axis])
    assert (sign * np.diff(path[:, axis]) > 0).all()


@pytest.mark.parametrize(("motion", "sign"), [("growing", 1), ("shrinking", -1)])
def test_growing_and_shrinking_change_the_area_fourfold(clip_of, motion, sign):
    size = np.log(areas(clip_of(motion)))
    assert sign * (size[-1] - size[0]) > np.log(4)
    assert (sign * np.diff(size) > 0).all()


def test_rotating_turns_the_shape_in_place(clip_of):
    clip = clip_of("rotating")
    # The head hides the front, so that the coloured part swings about the centre; a circling shape swings twice as far.
    assert np.ptp(centroids(clip), axis=0).max() < 46
    assert np.ptp(areas(clip)) < 0.05 * areas(clip).mean()
    first, *others = masks(clip)
    assert min((first & other).sum() / (first | other).sum() for other in others) < 0.75


def test_circling_goes_round_once_or_more_without_turning_the_shape(clip_of):
    path = centroids(clip_of("circling"))
    (a, b, c), *_ = np.linalg.lstsq(np.c_[2 * path, np.ones(len(path))], (path**2).sum(axis=1))
    offsets = path - (a, b)
    turned = np.ptp(np.unwrap(np.arctan2(offsets[:, 1], offsets[:, 0])))
    # Sixteen frames span fifteen sixteenths of the clip.
    assert turned > 0.9 * 2 * np.pi
    assert 40 < np.sqrt(c + a**2 + b**2) < 68


def test_bouncing_rises_and_falls_at_least_twice(clip_of):
    path = centroids(clip_of("bouncing"))
    assert np.ptp(path[:, 1]) > 65
    assert np.ptp(path[:, 0]) < 50
    heading = np.sign(np.diff(path[:, 1]))
    assert (np.diff(heading) != 0).sum() >= 3


def test_still_keeps_the_shape_where_it_is(clip_of):
    clip = clip_of("still")
    assert np.ptp(centroids(clip), axis=0).max() < 0.5
    assert np.ptp(areas(clip)) < 0.02 * areas(clip).mean()


@pytest.mark.parametrize("motion", MOTIONS)
def test_a_larger_canvas_shows_the_same_action_in_its_middle(motion):
    scene = sample_scene(3, Label("red", motion))
    square = centroids(render(scene, frame_times(4), size=(256, 256)))
    wide = centroids(render(scene, frame_times(4), size=(512, 640), scale=2.0))
    np.testing.assert_allclose((wide - (320, 256)) / 2, square - 128, atol=1)


def test_no_seed_serves_two_purposes():
    assert TRAINING_SEEDS.stop <= VALIDATION_SEEDS.start < VALIDATION_SEEDS.stop <= EVALUATION_SEEDS.start
