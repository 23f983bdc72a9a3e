"""Small files of the kinds that people have and that once came out wrong, each with its right answer."""

from pathlib import Path

import numpy as np
import pytest

from helpers.video_files import ffmpeg_frames, read_whole, read_whole_clip
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import NoFramesError
from xclip_runtime.video import FrameTransform, read_clip

CASES = Path(__file__).parents[2] / "data" / "cases"


@pytest.fixture(scope="module")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.mark.parametrize("path", [DEMO_VIDEO, CASES / "ride_interlaced.mp4", CASES / "ride_interlaced.ts"])
def test_an_interlaced_video_gets_the_label_of_its_progressive_twin(model, path):
    best = model.classify(path).labels[0]
    assert best.label == "an orange shape circling"
    assert best.prob >= 0.99


def bars(image):
    """The number that 16 bars in the lower half carry, the lowest bit left."""
    height, width = image.shape[:2]
    strip = image[height * 5 // 8 : height * 7 // 8].mean((0, 2))
    return sum(int(strip[(2 * bit + 1) * width // 32] > 128) << bit for bit in range(16))


@pytest.mark.parametrize("indices", [range(75), [0, 1, 40, 74], [73]])
def test_frames_of_interlaced_mpeg4_come_in_order_and_none_is_black(indices):
    seen, clip = read_whole_clip(CASES / "mpeg4.avi", indices)
    assert clip.total == 75
    assert [bars(image) for image in seen] == list(indices)
    assert min(image.mean() for image in seen) > 0


def corners(image):
    """The strongest colour of each quarter: top left, top right, bottom left, bottom right."""
    height, width = image.shape[:2]
    quarters = [image[y : y + 9, x : x + 9].mean((0, 1)) for y in (9, height - 18) for x in (9, width - 18)]
    return ["dark" if quarter.max() < 60 else ("red", "green", "blue")[quarter.argmax()] for quarter in quarters]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("matrix_base.mp4", ["red", "green", "blue", "dark"]),
        ("matrix_hflip.mp4", ["green", "red", "dark", "blue"]),
        ("matrix_vflip.mp4", ["blue", "dark", "red", "green"]),
    ],
)
def test_a_mirrored_display_matrix_mirrors(name, wanted):
    (first,) = read_whole(CASES / name, [0])
    assert first.shape == (120, 160, 3)
    assert corners(first) == wanted


@pytest.mark.parametrize("name", ["base", "hflip", "vflip", "rot90hflip"])
def test_a_display_matrix_shows_what_the_ffmpeg_command_shows(name):
    path = CASES / f"matrix_{name}.mp4"
    (wanted,) = ffmpeg_frames(path)
    seen = read_whole(path, range(len(wanted)))
    assert [image.shape for image in seen] == [image.shape for image in wanted]
    assert [corners(image) for image in seen] == [corners(image) for image in wanted]


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_colour_that_only_the_container_says_counts(suffix):
    path = CASES / f"colr_full709.{suffix}"
    ways = [ffmpeg_frames(path, options=flags)[0] for flags in ((), ("-sws_flags", "bicubic"))]
    total = read_clip(path, num_frames=1, transform=FrameTransform("videox")).total
    assert total == len(ways[0])
    for indices in (range(total), [0, total // 2], [total - 1]):
        for index, image in zip(indices, read_whole(path, indices), strict=True):
            assert min(np.abs(image.astype(int) - way[index]).max() for way in ways) <= 2
    assert [128, 8, 0] in ways[0][0].reshape(-1, 3).tolist()


def test_a_thumbnail_that_comes_first_is_not_the_video():
    seen, clip = read_whole_clip(CASES / "track_first.mp4", [0, 89])
    assert clip.total == 90
    assert np.abs(seen[0].astype(int) - seen[1]).mean() > 1
    assert read_whole_clip(CASES / "track_first.mp4", [0], track=0)[1].total == 1


def test_the_track_that_is_flagged_default_is_the_video():
    assert read_whole(CASES / "two_second_default.mkv", [0])[0].shape == (240, 320, 3)
    assert read_whole(CASES / "two_second_default.mkv", [0], track=0)[0].shape == (64, 96, 3)


def test_a_song_is_a_sound_file():
    with pytest.raises(NoFramesError, match="sound file"):
        read_whole(CASES / "song.m4a", [0])
