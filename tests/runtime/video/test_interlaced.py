"""Interlaced frames come whole and in order, with both fields as they are, in every codec and container.

The original's training read them so, too: neither decord nor OpenCV nor PyAV takes fields apart. FFmpeg's command
encodes, for PyAV cannot say which field comes first.
"""

import av
import numpy as np
import pytest

from helpers.video_files import (
    assert_same_frames,
    decoded,
    decoded_at,
    ffmpeg,
    film_input,
    number_in,
    painted,
    raw_film,
    read_whole,
    read_whole_clip,
    rgb_of,
)

FRAMES = 12
_FIELDS = ["-flags", "+ildct+ilme", "-vf", "setfield=tff", "-top", "1"]
_X264 = ["-c:v", "libx264", "-crf", "5", "-bf", "2"]
_MPEG2 = ["-c:v", "mpeg2video", "-b:v", "6M", "-bf", "2", *_FIELDS]
_MPEG4 = ["-c:v", "mpeg4", "-q:v", "1", "-bf", "2", *_FIELDS]
_DV = ["-s", "720x576", "-c:v", "dvvideo", "-pix_fmt", "yuv420p", "-frames:v", "3", *_FIELDS]
_DNXHD = ["-s", "1920x1080", "-c:v", "dnxhd", "-b:v", "120M", "-pix_fmt", "yuv422p", "-frames:v", "2", *_FIELDS]


def _lossless(codec, pix_fmt):
    return ["-c:v", codec, "-pix_fmt", pix_fmt, *_FIELDS]


_H264_SUFFIXES = ("mp4", "mov", "m4v", "3gp", "f4v", "ismv", "mkv", "avi", "flv", "asf", "nut", "wtv")
_H264_SUFFIXES += ("ts", "m2ts", "mpg", "vob", "h264")
_MPEG2_SUFFIXES = ["mp4", "mov", "mkv", "avi", "ts", "m2ts", "mpg", "vob", "mxf", "asf", "nut", "wtv", "m2v"]
_MPEG4_SUFFIXES = ["mp4", "mov", "3gp", "mkv", "avi", "ts", "m2ts", "mpg", "asf", "nut", "wtv", "m4v"]
FILES = {
    **{f"h264-tff.{suffix}": [*_X264, "-x264-params", "tff=1"] for suffix in _H264_SUFFIXES},
    **{f"h264-bff.{suffix}": [*_X264, "-x264-params", "bff=1"] for suffix in ("mp4", "mkv", "ts")},
    "h264-mbaff.mp4": [*_X264, "-flags", "+ildct", "-vf", "setfield=tff"],
    "h264-all-intra.mov": [*_X264, "-g", "1", "-x264-params", "tff=1"],
    "h264-said-only.mp4": [*_X264, "-x264-params", "fake-interlaced=1"],
    "h264-4-2-2.mp4": [*_X264, "-pix_fmt", "yuv422p", "-x264-params", "tff=1"],
    "h264-10-bit.mkv": [*_X264, "-pix_fmt", "yuv420p10le", "-x264-params", "tff=1"],
    "h264-4-4-4.mkv": [*_X264, "-pix_fmt", "yuv444p", "-x264-params", "tff=1"],
    "h264-cropped.mp4": ["-vf", "crop=156:124", *_X264, "-x264-params", "tff=1"],
    **{f"hevc-{order}.{suffix}": ["-c:v", "libx265", "-crf", "5", "-x265-params", f"interlace={order}:log-level=none"]
       for order, suffix in (("tff", "mp4"), ("bff", "ts"))},
    **{f"mpeg2.{suffix}": _MPEG2 for suffix in _MPEG2_SUFFIXES},
    "mpeg2-bff.ts": [*_MPEG2[:-4], "-vf", "setfield=bff", "-top", "0"],
    "mpeg2-4-2-2.ts": [*_MPEG2, "-pix_fmt", "yuv422p"],
    "mpeg2-4-2-2.mxf": [*_MPEG2, "-pix_fmt", "yuv422p"],
    **{f"mpeg4.{suffix}": _MPEG4 for suffix in _MPEG4_SUFFIXES},
    "xvid.avi": ["-c:v", "libxvid", "-q:v", "1", "-flags", "+ildct+ilme"],
    **{f"dv.{suffix}": _DV for suffix in ("dv", "avi", "mov", "mkv")},
    **{f"dnxhd.{suffix}": _DNXHD for suffix in ("mov", "mxf")},
    "prores.mov": _lossless("prores_ks", "yuv422p10le"),
    "prores.mkv": _lossless("prores_ks", "yuv422p10le"),
    "prores-aw.mov": _lossless("prores_aw", "yuv422p10le"),
    "ffv1.mkv": _lossless("ffv1", "yuv420p"),
    "ffv1.avi": _lossless("ffv1", "yuv420p"),
    "huffyuv.avi": _lossless("huffyuv", "yuv422p"),
    "huffyuv.mkv": _lossless("huffyuv", "yuv422p"),
    "ffvhuff.avi": _lossless("ffvhuff", "yuv420p"),
    "utvideo.avi": _lossless("utvideo", "yuv422p"),
    "magicyuv.avi": _lossless("magicyuv", "yuv422p"),
    "cineform.mov": _lossless("cfhd", "yuv422p10le"),
    "jpeg2000.mxf": _lossless("jpeg2000", "yuv422p"),
    "raw.avi": _lossless("rawvideo", "yuv420p"),
    "raw.mov": _lossless("rawvideo", "uyvy422"),
    "v210.mov": _lossless("v210", "yuv422p10le"),
}  # fmt: skip
# Nothing in these says that frames hold two fields; their content does.
UNSAID = {
    *("h264-said-only.mp4", "xvid.avi", "ffv1.avi", "huffyuv.avi", "huffyuv.mkv", "ffvhuff.avi", "utvideo.avi"),
    *("magicyuv.avi", "cineform.mov", "jpeg2000.mxf", "raw.avi"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files, of one run of the ffmpeg command."""
    folder = tmp_path_factory.mktemp("interlaced")
    outputs = [part for name, options in FILES.items() for part in (*options, "-threads", "1", folder / name)]
    ffmpeg(*film_input(), *outputs, stdin=raw_film(FRAMES))
    return folder


@pytest.fixture(scope="module")
def long_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("long-interlaced")
    outputs = []
    for name in ("h264-tff.mp4", "h264-bff.ts", "h264-tff.mkv", "mpeg2.ts", "mpeg2.mkv", "mpeg4.avi", "mpeg4.mp4"):
        outputs += [*FILES[name], "-g", "12", "-threads", "1", folder / name]
    ffmpeg(*film_input(), *outputs, stdin=raw_film(240))
    return folder


def test_the_files_say_that_they_are_interlaced(folder):
    unsaid = set()
    for name in FILES:
        with av.open(str(folder / name)) as container:
            if not next(container.decode(video=0)).interlaced_frame:
                unsaid.add(name)
    assert unsaid == UNSAID


@pytest.mark.parametrize("name", FILES)
def test_interlaced_frames_are_whole_and_in_order(folder, name):
    wanted = decoded(folder / name)
    seen = read_whole(folder / name, range(len(wanted)))
    assert len(wanted) == {"dv": 3, "dnxhd": 2}.get(name.split(".")[0], FRAMES)
    assert [number_in(image) for image in seen] == list(range(len(wanted)))
    assert_same_frames(seen, wanted)


@pytest.mark.parametrize("decoder", ["auto", "pyav"])
@pytest.mark.parametrize(
    "name", ["h264-tff.mp4", "h264-bff.ts", "h264-tff.mkv", "mpeg2.ts", "mpeg2.mkv", "mpeg4.avi", "mpeg4.mp4"]
)
def test_interlaced_frames_picked_out_of_a_long_video_are_the_same(long_folder, name, decoder):
    indices = [0, 1, 37, 100, 101, 102, 170, 239]
    wanted = decoded_at(long_folder / name, indices)
    seen, clip = read_whole_clip(long_folder / name, indices, decoder=decoder)
    assert clip.total == 240
    assert [number_in(image) for image in seen] == indices
    assert_same_frames(seen, [wanted[index] for index in indices])


def test_the_two_fields_are_not_blended(folder):
    # In a lossless file the lines are those that were painted: even ones of one moment, odd ones of the next.
    seen = read_whole(folder / "ffv1.mkv", [5])[0].astype(int)
    luma = painted(5)[0][:60].astype(int)
    grey = (0.299 * seen[..., 0] + 0.587 * seen[..., 1] + 0.114 * seen[..., 2])[:60]
    assert np.abs(grey - (luma - 16) * 255 / 219).max() < 3


def test_a_reference_by_arithmetic_is_what_ffmpeg_shows(folder):
    from helpers.video_files import ffmpeg_frames

    names = ["h264-4-2-2.mp4", "h264-10-bit.mkv", "prores.mov", "raw.mov", "h264-4-4-4.mkv"]
    for name, shown in zip(names, ffmpeg_frames(*(folder / name for name in names)), strict=True):
        with av.open(str(folder / name)) as container:
            assert_same_frames([rgb_of(frame) for frame in container.decode(video=0)], shown)
