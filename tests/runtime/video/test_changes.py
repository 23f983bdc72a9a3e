"""Changes of size, pixel format or colour within a track take effect at the right frame."""

import av
import numpy as np
import pytest

from helpers.video_files import (
    Part,
    assert_same_frames,
    decoded,
    encode,
    joined,
    number_in,
    read_whole_clip,
)
from xclip_runtime.video import FrameTransform, Views, read_clip, read_views

FRAMES = 12
_X264 = (("crf", "1"), ("preset", "veryfast"))
_X265 = (("crf", "1"), ("preset", "ultrafast"), ("x265-params", "log-level=none"))
_VPX = (("crf", "4"), ("b", "4M"), ("deadline", "realtime"), ("cpu-used", "8"))
_AV1 = (("preset", "12"),)
_MPEG = (("b", "20M"), ("qmin", "1"))
_SIZES = ((160, 128), (96, 160), (192, 64))
# Nothing said, BT.709 in full range, BT.601, BT.2020: numbers of ITU-T H.273, and of FFmpeg for the range.
_COLOURS = ((2, 0), (1, 2), (5, 1), (9, 1))


def _sizes(options, pix_fmt="yuv420p"):
    return [Part(size, pix_fmt, options=options) for size in _SIZES]


def _formats(options, *formats):
    return [Part(pix_fmt=pix_fmt, options=options) for pix_fmt in formats]


def _colours(options):
    return [Part(colour=colour, options=options) for colour in _COLOURS]


CHANGES = {
    # From one file of a kind that repeats its headers to another: codec, first container, last container, parts.
    "size-h264.ts": ("libx264", "ts", _sizes(_X264)),
    "size-h264.mkv": ("libx264", "ts", _sizes(_X264)),
    "size-h264.mp4": ("libx264", "ts", _sizes(_X264)),
    "size-h264.h264": ("libx264", "h264", _sizes(_X264)),
    "size-hevc.ts": ("libx265", "ts", _sizes(_X265)),
    "size-hevc.mkv": ("libx265", "ts", _sizes(_X265)),
    "size-vp8.webm": ("libvpx", "webm", _sizes(_VPX)),
    "size-vp9.webm": ("libvpx-vp9", "webm", _sizes(_VPX)),
    "size-vp9.mp4": ("libvpx-vp9", "webm", _sizes(_VPX)),
    "size-av1.mkv": ("libsvtav1", "mkv", _sizes(_AV1)),
    "size-mpeg2.ts": ("mpeg2video", "ts", _sizes(_MPEG)),
    "size-mpeg2.mpg": ("mpeg2video", "mpg", _sizes(_MPEG)),
    "size-mpeg1.mpg": ("mpeg1video", "mpg", _sizes(_MPEG)),
    "size-mpeg4.ts": ("mpeg4", "ts", _sizes(_MPEG)),
    "size-mjpeg.avi": ("mjpeg", "avi", _sizes((("q", "2"),), "yuvj420p")),
    "size-mjpeg.mkv": ("mjpeg", "mkv", _sizes((("q", "2"),), "yuvj420p")),
    "size-png.mov": ("png", "mov", _sizes((), "rgb24")),
    "format-h264.ts": ("libx264", "ts", _formats(_X264, "yuv420p", "yuv422p", "yuv420p10le", "yuv444p", "gray")),
    "format-h264.mkv": ("libx264", "ts", _formats(_X264, "yuv420p", "yuv422p10le")),
    "format-hevc.ts": ("libx265", "ts", _formats(_X265, "yuv420p", "yuv420p10le", "yuv444p")),
    "format-vp9.webm": ("libvpx-vp9", "webm", _formats(_VPX, "yuv420p", "yuv444p")),
    "format-mpeg2.ts": ("mpeg2video", "ts", _formats(_MPEG, "yuv420p", "yuv422p")),
    "format-mjpeg.avi": ("mjpeg", "avi", _formats((("q", "2"),), "yuvj420p", "yuvj444p", "yuvj422p")),
    "format-png.mov": ("png", "mov", _formats((), "rgb24", "gray", "rgba")),
    "colour-h264.ts": ("libx264", "ts", _colours(_X264)),
    "colour-h264.mkv": ("libx264", "ts", _colours(_X264)),
    "colour-hevc.ts": ("libx265", "ts", _colours(_X265)),
    "colour-vp9.webm": ("libvpx-vp9", "webm", _colours(_VPX)),
    "all-h264.ts": (
        "libx264",
        "ts",
        [Part((160, 128), "yuv420p", (1, 1), _X264), Part((96, 160), "yuv422p10le", (5, 2), _X264)],
    ),
    "back-h264.ts": ("libx264", "ts", [*_sizes(_X264)[:2], *_sizes(_X264)[:2]]),
    "interlaced-mpeg2.ts": (
        "mpeg2video",
        "ts",
        [Part(options=_MPEG), Part(options=(*_MPEG, ("flags", "+ildct+ilme"))), Part(options=_MPEG)],
    ),
    "interlaced-h264.ts": (
        "libx264",
        "ts",
        [Part(options=_X264), Part(options=(*_X264, ("x264-params", "tff=1"))), Part(options=_X264)],
    ),
}


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """Write a file of the table, and say what its frames are: those of its parts, each decoded for itself."""
    folder = tmp_path_factory.mktemp("changes")

    def make(name, frames=FRAMES):
        codec, suffix, parts = CHANGES[name]
        sources = []
        for place, part in enumerate(parts):
            source = folder / f"{name}-{frames}-{place}.{suffix}"
            if not source.exists():
                encode(source, codec, part, frames=frames, first=place * frames)
            sources.append(source)
        path = folder / f"{frames}-{name}"
        if not path.exists():
            joined(path, sources)
        return path, [image for source in sources for image in decoded(source)]

    return make


def right_frames(path, parts, total):
    """The frames that a reader shows that counts so many.

    At a change in MPEG-1 and MPEG-2, FFmpeg's decoder drops the last frame before it where it is not told to end there.
    """
    if total == len(parts) or "mpeg" not in path.name:
        return parts
    return decoded(path)


@pytest.mark.parametrize("name", CHANGES)
def test_each_frame_is_what_it_is_before_and_after_a_change(make, name):
    path, parts = make(name)
    assert [number_in(image) for image in parts] == list(range(len(parts)))
    wanted = right_frames(path, parts, read_whole_clip(path, [0])[1].total)
    seen, clip = read_whole_clip(path, range(len(wanted)))
    assert clip.total == len(wanted)
    assert [number_in(image) for image in seen] == [number_in(image) for image in wanted]
    assert_same_frames(seen, wanted)


@pytest.mark.parametrize("name", CHANGES)
def test_frames_in_any_order_of_asking_are_the_same(make, name):
    path, parts = make(name)
    indices = [FRAMES + 1, 0, FRAMES - 1, FRAMES, len(parts) - 3, FRAMES]
    seen, clip = read_whole_clip(path, indices)
    wanted = right_frames(path, parts, clip.total)
    assert_same_frames(seen, [wanted[index] for index in indices])


@pytest.mark.parametrize(
    "name", ["size-h264.ts", "size-vp8.webm", "size-mjpeg.avi", "colour-h264.ts", "format-h264.ts"]
)
def test_frames_picked_out_around_a_change_of_a_long_video_are_the_same(make, name):
    path, wanted = make(name, 80)
    for indices in ([0, 70, 79], [80, 90, 159], [79, 80], [160, len(wanted) - 1]):
        seen, clip = read_whole_clip(path, indices)
        assert clip.total == len(wanted)
        assert_same_frames(seen, [wanted[index] for index in indices])


@pytest.mark.parametrize("name", ["size-h264.ts", "size-vp9.webm", "size-mjpeg.avi"])
@pytest.mark.parametrize("profile", ["videox", "hf"])
def test_frames_of_another_size_are_resized_by_their_own_shape(make, name, profile):
    path, wanted = make(name)
    transform = FrameTransform(profile, 48)
    count = len(wanted)
    clip = read_clip(path, num_frames=count, transform=transform)
    for frame, image in zip(clip.frames, wanted, strict=True):
        # Overshoot of the resizing adds to the rounding of the conversion.
        assert np.abs(frame.astype(int) - transform(image)).max() <= 4
    views = read_views(path, num_frames=count, transform=transform, views=Views(1, 3))
    assert views.frames.shape == (3, count, 48, 48, 3)
    assert views.frames.mean((2, 3, 4)).min() > 30


def test_the_parts_differ_as_the_names_say(make):
    # Were the changes lost in making the files, nothing above would be tested.
    seen = {}
    for name in CHANGES:
        path, _ = make(name)
        with av.open(str(path)) as container:
            kinds = [
                ((frame.width, frame.height), frame.format.name, frame.colorspace, frame.color_range)
                for frame in container.decode(video=0)
            ]
        what = {"size": 0, "format": 1, "back": 0}.get(name.split("-")[0])
        seen[name] = len({kind if what is None else kind[what] for kind in kinds})
    # FFmpeg decodes grey H.264 to 4:2:0, and full range of it to a format of its own.
    expected = {name: len(set(parts)) for name, (_, _, parts) in CHANGES.items() if not name.startswith("interlaced")}
    expected["format-h264.ts"] -= 1
    assert {name: kinds for name, kinds in seen.items() if kinds < expected.get(name, 1)} == {}
