import cv2
import numpy as np
import pytest
from PIL import Image

from helpers.numbered_clips import Recipe, read_number
from xclip_runtime.video import FrameTransform, Views, read_clip, read_views, uniform_indices
from xclip_runtime.video.views import three_crops

FRAMES = 90


@pytest.fixture(scope="module")
def clip(clip_folder):
    return Recipe("views.mp4", frames=FRAMES, size=(240, 128)).encode(clip_folder)


@pytest.mark.parametrize(("height", "width"), [(120, 300), (300, 120), (224, 224), (97, 128)])
def test_three_crops_of_videox_come_in_the_order_of_the_original(height, width):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    factor = 224 / min(height, width)
    resized = cv2.resize(frame, (int(width * factor + 0.5), int(height * factor + 0.5)), interpolation=cv2.INTER_LINEAR)
    step = (max(resized.shape[:2]) - 224) // 2
    offsets = [0, 2 * step, step]
    expected = [resized[y : y + 224, :224] if height > width else resized[:224, y : y + 224] for y in offsets]
    np.testing.assert_array_equal(three_crops(frame, FrameTransform("videox")), expected)


def test_three_crops_of_hf_are_cut_from_the_frame_that_pillow_resizes():
    frame = np.random.default_rng(0).integers(0, 256, (300, 501, 3), dtype=np.uint8)
    resized = np.asarray(Image.fromarray(frame).resize((int(224 * 501 / 300), 224), Image.Resampling.BILINEAR))
    step = (resized.shape[1] - 224) // 2
    crops = three_crops(frame, FrameTransform("hf"))
    for crop, left in zip(crops, (0, 2 * step, step), strict=True):
        assert np.abs(crop.astype(int) - resized[:, left : left + 224]).max() <= 1


def test_views_are_ordered_crop_by_crop_and_clip_by_clip_within(clip):
    transform = FrameTransform("videox")
    views = read_views(clip, num_frames=8, transform=transform, views=Views(positions=4, crops=3))
    assert views.frames.shape == (12, 8, 224, 224, 3)
    expected = uniform_indices(FRAMES, 32).reshape(8, 4)
    assert views.indices == tuple(expected.T.ravel())
    whole = read_clip(clip, num_frames=32, transform=_Whole())
    for number in (0, 3, 7, 11):
        crop, temporal = divmod(number, 4)
        for place in (0, 5):
            image = whole.frames[place * 4 + temporal]
            np.testing.assert_array_equal(views.frames[number, place], three_crops(image, transform)[crop])
    middle = [read_number(frame, cropped=False) for frame in views.frames[8 + 1]]
    assert middle == expected[:, 1].tolist()


class _Whole:
    """The decoded frame as it is, RGB."""

    def __call__(self, frame):
        return frame.copy()


def test_one_clip_and_one_crop_is_the_ordinary_reading(clip):
    transform = FrameTransform("videox")
    one = read_views(clip, num_frames=8, transform=transform, views=Views())
    plain = read_clip(clip, num_frames=8, transform=transform)
    np.testing.assert_array_equal(one.frames[0], plain.frames)
    assert one.indices == plain.indices


def test_temporal_clips_together_are_the_uniform_sampling_of_all_their_frames(clip):
    clips = read_views(clip, num_frames=4, transform=FrameTransform("videox"), views=Views(positions=5))
    assert sorted(clips.indices) == uniform_indices(FRAMES, 20).tolist()


@pytest.mark.parametrize(("text", "clips", "crops"), [("1x1", 1, 1), ("4x3", 4, 3), ("10x1", 10, 1)])
def test_views_are_written_clips_x_crops(text, clips, crops):
    views = Views.parse(text)
    assert (views.positions, views.crops, len(views)) == (clips, crops, clips * crops)


@pytest.mark.parametrize("text", ["", "4", "4x2", "0x1", "x3", "4x3x2", "-1x3", "4*3", "99999x1"])
def test_other_texts_are_refused_with_an_example(text):
    with pytest.raises(ValueError, match="POSITIONSxCROPS"):
        Views.parse(text)
