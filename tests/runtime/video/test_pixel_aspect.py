"""Pixels are taken as square, as in training, unless they are asked for as players show them."""

import av
import numpy as np
import pytest

from helpers.video_files import (
    SIZE,
    Part,
    assert_same_frames,
    decoded,
    encode,
    ffmpeg,
    number_in,
    read_whole,
    with_matrix,
)
from xclip_runtime.errors import VideoLimitError
from xclip_runtime.video import FrameTransform, Views, read_clip, read_views

WIDTH, HEIGHT = SIZE
# Sample aspect ratios, and the frame that a player shows.
RATIOS = {"16:11": (233, HEIGHT), "8:9": (142, HEIGHT), "2:1": (2 * WIDTH, HEIGHT), "1:2": (WIDTH // 2, HEIGHT)}
SAID_BY = {
    "stream-and-container.mp4": ["-c:v", "libx264", "-crf", "5"],
    "stream.ts": ["-c:v", "libx264", "-crf", "5"],
    "stream-mpeg4.avi": ["-c:v", "mpeg4", "-q:v", "1"],
    "container.mkv": ["-c:v", "ffv1"],
    "container.mov": ["-c:v", "qtrle"],
    "container.webm": ["-c:v", "libvpx", "-b:v", "6M", "-crf", "4"],
}


def file_of(folder, ratio, name):
    return folder / f"{ratio.replace(':', '-')}-{name}"


@pytest.fixture(scope="module")
def plain(clip_folder):
    return encode(clip_folder / "square-pixels.mp4", part=Part(options=(("crf", "5"),)), frames=6)


@pytest.fixture(scope="module")
def folder(plain, tmp_path_factory):
    folder = tmp_path_factory.mktemp("aspects")
    outputs = []
    for ratio in RATIOS:
        for name, options in SAID_BY.items():
            file_of(folder, ratio, name)
            outputs += [
                *options,
                "-vf",
                f"setsar={ratio.replace(':', '/')}",
                folder / f"{ratio.replace(':', '-')}-{name}",
            ]
    ffmpeg("-i", plain, *outputs)
    return folder


@pytest.fixture(params=[(ratio, name) for ratio in RATIOS for name in SAID_BY], ids="-".join)
def stretched(request, folder):
    """A file, and the frame that a player shows of it: width and height."""
    ratio, name = request.param
    return file_of(folder, ratio, name), RATIOS[ratio]


def test_the_ratio_is_ignored_by_default(stretched):
    path, _ = stretched
    assert_same_frames(read_whole(path, range(6)), decoded(path))


def test_pixels_are_made_square_where_that_is_asked_for(stretched):
    path, (width, height) = stretched
    for index, image in enumerate(read_whole(path, range(6), square_pixels=True)):
        shown = image.shape[1] / image.shape[0]
        # Which side is stretched is left open; none may lose half its lines.
        assert abs(shown / (width / height) - 1) < 0.02
        assert number_in(image) == index
        assert image.mean() > 20


def test_square_pixels_are_left_as_they_are(plain):
    assert_same_frames(read_whole(plain, range(6), square_pixels=True), read_whole(plain, range(6)), within=0)


def test_what_the_model_gets_is_another_part_of_the_frame(folder):
    path, transform = folder / "2-1-container.mkv", FrameTransform("videox", 64)
    plainly = read_clip(path, num_frames=3, transform=transform).frames.astype(int)
    square = read_clip(path, num_frames=3, transform=transform, square_pixels=True).frames.astype(int)
    assert np.abs(plainly - square).mean() > 5
    views = read_views(path, num_frames=3, transform=transform, views=Views(1, 3), square_pixels=True)
    assert views.frames.shape == (3, 3, 64, 64, 3)
    # The middle square of the three shows what the middle of a player's frame shows, not all of the frame.
    (wide,) = read_whole(path, [1], square_pixels=True)
    middle = wide[:, wide.shape[1] // 2 - wide.shape[0] // 2 :][:, : wide.shape[0]]
    assert np.abs(views.frames[2][0].mean((0, 1)) - middle.mean((0, 1))).max() < 3


def test_a_turned_frame_is_stretched_along_its_stored_rows(folder):
    path = with_matrix(folder / "2-1-stream-and-container.mp4", folder / "turned.mp4", (0, 1, -1, 0))
    for image in read_whole(path, range(3), square_pixels=True):
        assert abs(image.shape[0] / image.shape[1] - 2 * WIDTH / HEIGHT) < 0.02


def test_a_ratio_of_nothing_counts_as_one(folder):
    path = folder / "nothing.mov"
    data = bytearray((folder / "2-1-container.mov").read_bytes())
    place = data.index(b"pasp") + 4
    data[place : place + 8] = bytes(8)
    path.write_bytes(data)
    assert read_whole(path, [0], square_pixels=True)[0].shape == (HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("ratio", ["65000/1", "1/2000"])
def test_an_absurd_ratio_does_not_make_an_absurd_frame(plain, tmp_path, ratio):
    """A line in the header would make 4 GB of a frame, or a single column."""
    path = tmp_path / "absurd.mkv"
    ffmpeg("-i", plain, "-c:v", "ffv1", "-vf", f"setsar={ratio}:max=70000", path)
    try:
        (seen,) = read_whole(path, [0], square_pixels=True, max_pixels=1_000_000)
    except VideoLimitError:
        return
    assert seen.shape[0] * seen.shape[1] <= 1_000_000
    assert min(seen.shape[:2]) > 1


def test_the_files_say_their_ratios(folder):
    for ratio in RATIOS:
        for name in SAID_BY:
            with av.open(str(file_of(folder, ratio, name))) as container:
                width, height = map(int, ratio.split(":"))
                assert abs(float(container.streams.video[0].sample_aspect_ratio) / (width / height) - 1) < 0.02, name
