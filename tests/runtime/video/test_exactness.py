"""Every frame is the one that was asked for, read in order or picked out, whatever the codec and container.

The number of each frame is painted into it, and a plain decode of the clip by PyAV says which ones a player shows.
"""

import av
import numpy as np
import pytest

from helpers.numbered_clips import Recipe, is_upright, read_number
from xclip_runtime.video import FrameTransform, read_clip
from xclip_runtime.video.sampling import given

TRANSFORM = FrameTransform("videox")
_uneven = np.cumsum(np.random.default_rng(0).integers(5, 60, 200)).tolist()
_quick = {"deadline": "realtime", "cpu-used": "8"}
_open_gop = "open-gop=1:bframes=3:keyint=24:min-keyint=24:scenecut=0"
_quiet = "log-level=none"

RECIPES = [
    Recipe("b-frames.mp4"),
    Recipe("b-frames.ts"),
    Recipe("b-pyramid.mp4", options={"bf": "16", "x264-params": "b-pyramid=strict:scenecut=0"}, gop=60),
    Recipe("open-gop.mp4", options={"x264-params": _open_gop}),
    Recipe("open-gop.ts", options={"x264-params": _open_gop}),
    Recipe("intra-refresh.ts", options={"x264-params": "intra-refresh=1:keyint=24"}),
    Recipe("one-keyframe.mp4", gop=1000),
    Recipe("fragmented.mp4", muxing={"movflags": "frag_keyframe+empty_moov"}),
    Recipe("hevc.mp4", "libx265", options={"x265-params": _quiet}),
    Recipe("hevc-open-gop.mkv", "libx265", options={"x265-params": f"{_quiet}:{_open_gop}"}),
    Recipe("hevc-10-bit.mp4", "libx265", pix_fmt="yuv420p10le", options={"x265-params": _quiet}),
    Recipe("vp9.webm", "libvpx-vp9", options=_quick),
    Recipe("vp9-odd.webm", "libvpx-vp9", options=_quick, size=(163, 131)),
    Recipe("vp9-alt-ref.webm", "libvpx-vp9", options={"auto-alt-ref": "1", "lag-in-frames": "16", "cpu-used": "8"}),
    Recipe("vp8.webm", "libvpx", options=_quick),
    Recipe("av1.mp4", "libsvtav1", options={"svtav1-params": "preset=12"}),
    Recipe("mpeg4.mp4", "mpeg4", options={"bf": "2"}),
    Recipe("mpeg4.avi", "mpeg4", options={"bf": "2"}),
    Recipe("mpeg2.ts", "mpeg2video", options={"bf": "2"}),
    Recipe("mpeg2.mpg", "mpeg2video", options={"bf": "2"}),
    Recipe("mpeg2-closed-gop.mkv", "mpeg2video", options={"bf": "2", "flags": "+cgop", "sc_threshold": "1000000000"}),
    Recipe("mpeg2.avi", "mpeg2video", options={"bf": "2"}),
    Recipe("mpeg1.mpg", "mpeg1video", options={"bf": "2"}),
    Recipe("mpeg4-ip.avi", "mpeg4"),
    Recipe("h264-b-frames.avi", options={"bf": "3"}),
    Recipe("mjpeg.avi", "mjpeg", pix_fmt="yuvj420p"),
    Recipe("prores-alpha.mov", "prores_ks", pix_fmt="yuva444p10le"),
    Recipe("png-alpha.mov", "png", pix_fmt="rgba"),
    Recipe("grey.mp4", pix_fmt="gray"),
    Recipe("4-4-4.mp4", pix_fmt="yuv444p"),
    Recipe("uneven.mp4", ticks=_uneven.__getitem__),
    Recipe("uneven.mkv", ticks=_uneven.__getitem__),
    Recipe("uneven.ts", ticks=_uneven.__getitem__),
    Recipe("pause.mp4", ticks=lambda number: number * 20 + (number > 100) * 30_000),
    Recipe("edit-list.mp4", ticks=lambda number: number * 20 - 410),
    Recipe("trimmed.mp4", shown=(0.5, 6.5)),
    Recipe("late-start.mp4", ticks=lambda number: number * 20 + 5000),
    Recipe("turned-90.mp4", rotation=90),
    Recipe("turned-180.mp4", rotation=180),
    Recipe("turned-270.mp4", rotation=270),
]
# Where packets do not identify the frames, or hold others than they say, reading in order is what remains.
WHOLLY_DECODED = {"intra-refresh.ts", "mpeg2.mpg", "h264-b-frames.avi"}


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.name, scope="module")
def recipe(request):
    return request.param


@pytest.fixture(scope="module")
def clip(recipe, clip_folder):
    return recipe.encode(clip_folder)


@pytest.fixture(scope="module")
def shown(clip):
    """The prepared frames that a plain decode of the whole clip yields, by PyAV, upright."""
    with av.open(str(clip)) as container:
        images = []
        for frame in container.decode(video=0):
            image = frame.reformat(format="rgb24", interpolation="BICUBIC").to_ndarray()
            images.append(TRANSFORM(np.rot90(image, round(frame.rotation / 90)).copy()))
    return images


@pytest.fixture(params=[None, "threads", "parts"], ids=["as it is", "with threads", "in three parts"])
def policy(request):
    return request.param and request.getfixturevalue(request.param)


def test_sampled_frames_are_those_of_a_full_decode(recipe, clip, shown, policy):
    read = read_clip(clip, num_frames=16, transform=TRANSFORM, policy=policy)
    assert read.total == len(shown)
    assert (read.notes == ()) == (recipe.name not in WHOLLY_DECODED)
    for frame, index in zip(read.frames, read.indices, strict=True):
        np.testing.assert_array_equal(frame, shown[index])


def test_all_frames_are_those_of_a_full_decode(clip, shown, policy):
    read = read_clip(clip, num_frames=len(shown), transform=TRANSFORM, policy=policy)
    assert read.indices == tuple(range(len(shown)))
    np.testing.assert_array_equal(read.frames, shown)


def test_frames_picked_out_are_those_of_a_full_decode(recipe, clip, shown, policy):
    last = len(shown) - 1
    methods = {}
    for wanted in ([0], [1, 100], [23], [24], [25, 26], [22, 70, 71, 72, 73, 95], [47, 150], [97], [last - 30], [last]):
        read = read_clip(clip, num_frames=len(wanted), transform=TRANSFORM, sampling=given(wanted), policy=policy)
        assert read.total == len(shown)
        methods[wanted[0]] = read.method
        for frame, index in zip(read.frames, wanted, strict=True):
            np.testing.assert_array_equal(frame, shown[index])
    assert (methods[97] == "selective") == (recipe.name not in WHOLLY_DECODED)


def test_the_painted_numbers_are_the_indices(recipe, clip):
    cut = {"edit-list.mp4": 21, "trimmed.mp4": 15}.get(recipe.name, 0)
    read = read_clip(clip, num_frames=9, transform=TRANSFORM)
    assert [read_number(frame, cropped=True) - cut for frame in read.frames] == list(read.indices)
    assert read.total == (180 if recipe.shown else recipe.frames - cut)


def test_frames_are_upright(recipe, clip):
    if recipe.pix_fmt == "gray":
        pytest.skip("the corners are told apart by colour")
    assert is_upright(read_clip(clip, num_frames=4, transform=TRANSFORM).frames[1])
