"""Everything that is read as a video, and the one line for everything else."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import FramesError, VideoDecodeError, VideoError, VideoTypeError
from xclip_runtime.util.inputs import check_several, is_several, name_of
from xclip_runtime.video import FrameTransform, read_clip
from xclip_runtime.video.load import Reading, read_video

T, SIZE = 4, 32
CONTENT = DEMO_VIDEO.read_bytes()
FRAMES = np.random.default_rng(0).integers(0, 256, (6, 48, 64, 3), dtype=np.uint8)
IMAGES = [Image.fromarray(frame) for frame in FRAMES]


def read(video):
    return read_video(video, T, FrameTransform("videox", SIZE), Reading())


@pytest.fixture(scope="module")
def clip():
    return read_clip(DEMO_VIDEO, num_frames=T, transform=FrameTransform("videox", SIZE))


@pytest.mark.parametrize(
    "video",
    [CONTENT, bytearray(CONTENT), memoryview(CONTENT), io.BytesIO(CONTENT)],
    ids=lambda video: type(video).__name__,
)
def test_the_content_of_a_file_is_read_as_the_file(clip, video):
    found = read(video)

    np.testing.assert_array_equal(found.frames.reshape(clip.frames.shape), clip.frames)
    assert (found.indices, found.total, found.decoder) == (clip.indices, clip.total, clip.decoder)


def test_a_binary_file_is_read_from_its_start_wherever_it_stands_and_as_often_as_wanted(clip):
    with DEMO_VIDEO.open("rb") as file:
        file.read(1000)
        for _ in range(2):
            np.testing.assert_array_equal(read(file).frames.reshape(clip.frames.shape), clip.frames)


def test_a_file_that_cannot_be_rewound_is_read_from_where_it_stands(clip):
    class Pipe(io.BytesIO):
        def seekable(self):
            return False

        def seek(self, *args):
            raise io.UnsupportedOperation

    np.testing.assert_array_equal(read(Pipe(CONTENT)).frames.reshape(clip.frames.shape), clip.frames)


def test_read_clip_takes_the_content_of_a_file_too(clip):
    for video in (CONTENT, io.BytesIO(CONTENT)):
        found = read_clip(video, num_frames=T, transform=FrameTransform("videox", SIZE))
        np.testing.assert_array_equal(found.frames, clip.frames)


def test_an_object_that_can_do_no_more_than_read_is_read(clip):
    class Reader:
        read = staticmethod(io.BytesIO(CONTENT).read)

    np.testing.assert_array_equal(read(Reader()).frames.reshape(clip.frames.shape), clip.frames)


def test_the_content_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    read(CONTENT)
    with pytest.raises(VideoError):
        read(b"not a video")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a video", CONTENT[:100]], ids=["empty", "text", "cut off"])
def test_content_that_is_no_video_is_refused_without_the_name_of_a_temporary_file(content):
    with pytest.raises(VideoError, match="the video in memory") as caught:
        read(content)

    assert "xclip-onnx-" not in str(caught.value)


def test_content_that_cannot_be_written_to_the_disk_is_a_video_error(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(VideoError, match=r"No space left on device\): free space, or set TMPDIR"):
        read(b"content")


def test_a_file_in_text_mode_is_refused_with_the_right_mode():
    with pytest.raises(VideoTypeError, match="open it with mode 'rb'"):
        read(io.StringIO("text"))


def test_a_closed_file_is_refused():
    file = io.BytesIO(CONTENT)
    file.close()

    with pytest.raises(VideoDecodeError, match=r"closed file.*give a readable binary file"):
        read(file)


class Foreign:
    """An array of another library, such as a tensor on the CPU."""

    def __init__(self, array):
        self.__array_interface__ = array.__array_interface__
        self._keep = array


@pytest.mark.parametrize(
    "video",
    [list(FRAMES), tuple(FRAMES), IMAGES, [Foreign(frame) for frame in FRAMES], Foreign(FRAMES)],
    ids=["list of arrays", "tuple of arrays", "list of PIL images", "list of foreign arrays", "foreign array"],
)
def test_images_are_the_frames_of_one_video(video):
    assert not is_several(video)
    np.testing.assert_array_equal(read(video).frames, read(FRAMES).frames)


@pytest.mark.parametrize(
    ("video", "message"),
    [
        ([FRAMES[0], FRAMES[1][:, :32]], "frames of the list differ"),
        ([FRAMES[0], FRAMES[1].astype(np.float32)], "frames of the list differ"),
        ([image.convert("L") for image in IMAGES], r"uint8 \(6, 48, 64\): give uint8 RGB"),
        ([image.convert("RGBA") for image in IMAGES], r"\(6, 48, 64, 4\): give uint8 RGB"),
        (IMAGES[0], r"\(48, 64, 3\): give uint8 RGB of shape \(T, H, W, 3\)"),
    ],
    ids=["sizes", "types", "grey", "RGBA", "a single image"],
)
def test_other_images_are_refused_with_what_is_wanted(video, message):
    with pytest.raises(FramesError, match=message):
        read(video)


@pytest.mark.parametrize("video", [None, 3, 2.5, {}, Path, [], [[]], [1, 2], {"a"}], ids=repr)
def test_anything_else_is_refused_with_what_goes_in(video):
    with pytest.raises(VideoTypeError, match="give a path, the bytes of a file, a binary file, frames as uint8 RGB"):
        read(video)


def test_the_error_is_a_video_error_and_a_type_error():
    assert issubclass(VideoTypeError, VideoError)
    assert issubclass(VideoTypeError, TypeError)


@pytest.mark.parametrize(
    ("videos", "several"),
    [
        ("a.mp4", False),
        (Path("a.mp4"), False),
        (b"content", False),
        (io.BytesIO(), False),
        (FRAMES, False),
        (list(FRAMES), False),
        (IMAGES, False),
        (None, False),
        ({}, False),
        ([FRAMES, FRAMES], True),
        (np.stack([FRAMES, FRAMES]), True),
        (["a.mp4"], True),
        ([b"content"], True),
        ([io.BytesIO()], True),
        ([list(FRAMES), IMAGES], True),
        ([], True),
        (iter(["a.mp4"]), True),
    ],
    ids=[
        *("path", "Path", "bytes", "file", "array", "frames", "images", "None", "mapping"),
        *("arrays", "stacked arrays", "paths", "many bytes", "files", "lists of frames", "nothing", "iterator"),
    ],
)
def test_one_video_and_several_are_told_apart_by_the_first_item(videos, several):
    assert is_several(videos) is several


@pytest.mark.parametrize("videos", ["a.mp4", b"content", io.BytesIO(), FRAMES, IMAGES, None, 3])
def test_one_video_where_several_are_wanted_is_refused(videos):
    with pytest.raises(VideoTypeError, match="put it into a list"):
        check_several(videos)


@pytest.mark.parametrize("videos", [["a.mp4"], iter(["a.mp4"]), [FRAMES], np.stack([FRAMES, FRAMES]), []])
def test_several_videos_are_accepted(videos):
    check_several(videos)


@pytest.mark.parametrize(
    ("video", "name"), [("a.mp4", "a.mp4"), (Path("b.mp4"), "b.mp4"), (CONTENT, None), (FRAMES, None)]
)
def test_a_video_is_named_by_its_path_alone(video, name):
    assert name_of(video) == name
