"""A frame is shown as the display matrix of its track says: turned, mirrored, or both."""

import av
import numpy as np
import pytest

from helpers.video_files import (
    Part,
    assert_same_frames,
    decoded,
    encode,
    ffmpeg_frames,
    number_in,
    read_whole,
    read_whole_clip,
    remux,
    turned,
    with_matrix,
)
from xclip_runtime.video import FrameTransform, Views, read_clip, read_views

# (a, b, c, d) of ISO/IEC 14496-12 6.2.2: the point (x, y) is shown at (a x + c y, b x + d y).
MATRICES = {
    "as-stored": (1, 0, 0, 1),
    "turned-right": (0, 1, -1, 0),
    "turned-half": (-1, 0, 0, -1),
    "turned-left": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored-upside-down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed-other-way": (0, -1, -1, 0),
}
CORNERS = ((220, 40, 40), (40, 200, 40), (40, 40, 220), (210, 210, 60))


@pytest.fixture(scope="module")
def plain(clip_folder):
    """160x120, its corners of four colours: red, green / blue, yellow."""
    path = clip_folder / "corners.mp4"
    image = np.zeros((120, 160, 3), np.uint8)
    for corner, colour in enumerate(CORNERS):
        image[60 * (corner // 2) :, 80 * (corner % 2) :][:60, :80] = colour
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "5"})
        stream.width, stream.height = 160, 120
        for _ in range(6):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    return path


@pytest.fixture(params=MATRICES)
def matrix(request):
    return MATRICES[request.param]


@pytest.fixture
def shown(plain, clip_folder, matrix):
    """The file with the matrix."""
    path = clip_folder / f"corners{matrix}.mp4"
    return path if path.exists() else with_matrix(plain, path, matrix)


def corners(image):
    """The numbers of the colours, clockwise, from the top left."""
    height, width = image.shape[:2]
    points = [
        (height // 5, width // 5),
        (height // 5, -width // 5),
        (-height // 5, -width // 5),
        (-height // 5, width // 5),
    ]
    seen = [image[y - 2 : y + 3, x - 2 : x + 3].mean((0, 1)) for y, x in points]
    return [int(np.argmin([np.abs(colour - wanted).max() for wanted in CORNERS])) for colour in seen]


def test_frames_are_shown_as_the_matrix_says(plain, shown, matrix):
    wanted = [turned(image, matrix) for image in decoded(plain)]
    for seen, right in zip(read_whole(shown, range(6)), wanted, strict=True):
        assert seen.shape == right.shape
        assert corners(seen) == corners(right)


def test_all_matrices_are_shown_as_the_ffmpeg_command_does(plain, clip_folder):
    paths = [with_matrix(plain, clip_folder / f"all{matrix}.mp4", matrix) for matrix in MATRICES.values()]
    for path, wanted in zip(paths, ffmpeg_frames(*paths), strict=True):
        seen = read_whole(path, range(6))
        assert [corners(image) for image in seen] == [corners(image) for image in wanted]
        assert [image.shape for image in seen] == [image.shape for image in wanted]


def test_what_the_model_gets_is_turned_too(plain, shown, matrix):
    transform = FrameTransform("videox", 64)
    wanted = corners(transform(turned(decoded(plain)[0], matrix)))
    read = read_clip(shown, num_frames=2, transform=transform)
    assert [corners(frame) for frame in read.frames] == [wanted] * 2
    views = read_views(shown, num_frames=2, transform=transform, views=Views(2, 1))
    assert [corners(frame) for view in views.frames for frame in view] == [wanted] * 4


@pytest.mark.parametrize("suffix", ["mov", "mkv"])
def test_a_matrix_counts_in_other_containers(plain, shown, matrix, suffix, clip_folder):
    """Matroska keeps it as the pose of a projection."""
    path = remux(shown, clip_folder / f"other{matrix}.{suffix}")
    seen = read_whole(path, range(2))
    assert [corners(image) for image in seen] == [corners(turned(image, matrix)) for image in decoded(plain)[:2]]


def test_frames_picked_out_of_a_long_video_are_turned(clip_folder, matrix):
    source = encode(
        clip_folder / "long-matrix.mp4", part=Part(options=(("preset", "ultrafast"), ("crf", "10"))), frames=240, gop=12
    )
    path = with_matrix(source, clip_folder / f"long-matrix{matrix}.mp4", matrix)
    stored = decoded(source)
    indices = [0, 3, 101, 170, 171, 239]
    seen, clip = read_whole_clip(path, indices)
    assert clip.total == 240
    assert_same_frames(seen, [turned(stored[index], matrix) for index in indices])


@pytest.mark.parametrize("matrix", [(0, 0, 0, 0), (2, 0, 0, 2)])
def test_a_matrix_without_turn_or_mirror_changes_nothing(plain, clip_folder, matrix):
    seen = read_whole(with_matrix(plain, clip_folder / f"odd{matrix}.mp4", matrix), range(6))
    assert_same_frames(seen, read_whole(plain, range(6)), within=0)


def test_a_frame_that_is_turned_askew_is_whole(plain, clip_folder):
    """No camera writes this; which way it is turned is left open."""
    seen = read_whole(with_matrix(plain, clip_folder / "askew.mp4", (1, 1, -1, 1)), range(6))
    assert min(image.mean() for image in seen) > 50


def test_numbers_are_read_from_turned_frames(clip_folder):
    # `turned` itself, against a number that only upright frames show.
    stored = decoded(encode(clip_folder / "upright.mp4", frames=20))[13]
    assert number_in(stored) == 13
    for matrix in MATRICES.values():
        inverse = np.rint(np.linalg.inv(np.array(matrix).reshape(2, 2))).astype(int).ravel().tolist()
        assert number_in(turned(turned(stored, matrix), inverse)) == 13
