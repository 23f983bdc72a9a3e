"""A frame is the same however it is reached, and shows nothing but itself.

Reached in order or picked out, alone or behind another video, in memory that holds one marker or another: what a video
shows depends on its file alone. Each file here is one of the kinds that took a buffer for a frame once.
"""

import itertools
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers import frame_digests
from helpers.frame_digests import digest_of, digests
from helpers.video_files import (
    Part,
    assert_same_frames,
    decoded_at,
    encode,
    ffmpeg,
    film_input,
    joined,
    number_in,
    raw_film,
    read_whole,
    read_whole_clip,
    with_matrix,
)
from xclip_runtime.demo import DEMO_VIDEO

FRAMES = 120
_SIZE_CHANGES = ((160, 128), (96, 160), (192, 64))
_FIELDS = ["-flags", "+ildct+ilme", "-vf", "setfield=tff", "-top", "1"]
_X264 = ["-c:v", "libx264", "-crf", "8", "-preset", "veryfast", "-bf", "2", "-g", "24"]
_X265 = ["-c:v", "libx265", "-crf", "8", "-preset", "ultrafast", "-g", "24", "-x265-params", "log-level=none"]
_MPEG2 = ["-c:v", "mpeg2video", "-b:v", "6M", "-bf", "2", "-g", "12"]
_MPEG4 = ["-c:v", "mpeg4", "-q:v", "1", "-bf", "2", "-g", "24"]
_VP9 = ["-c:v", "libvpx-vp9", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8", "-g", "24"]
_OPEN_GOP = ["-x264-params", "open-gop=1:bframes=3:scenecut=0"]
FILES = {
    **{f"h264.{suffix}": _X264 for suffix in ("mp4", "mkv", "ts", "avi", "flv", "asf", "mpg", "nut", "mxf", "h264")},
    **{f"h264-open-gop.{suffix}": [*_X264, *_OPEN_GOP] for suffix in ("mp4", "ts", "avi")},
    "h264-no-b-frames.avi": [*_X264, "-bf", "0"],
    "h264-pyramid.avi": [*_X264, "-x264-params", "b-pyramid=strict:bframes=7"],
    "h264-one-keyframe.mp4": [*_X264, "-g", "1000"],
    "h264-interlaced.mp4": [*_X264, "-x264-params", "tff=1"],
    "h264-interlaced.ts": [*_X264, "-x264-params", "bff=1"],
    "h264-interlaced.avi": [*_X264, "-x264-params", "tff=1"],
    **{f"hevc.{suffix}": _X265 for suffix in ("mp4", "mkv", "ts", "hevc")},
    **{f"mpeg2.{suffix}": _MPEG2 for suffix in ("mpg", "ts", "mkv", "avi", "mp4", "mxf", "m2v")},
    "mpeg2-interlaced.ts": [*_MPEG2, *_FIELDS],
    "mpeg2-interlaced.mpg": [*_MPEG2, *_FIELDS],
    **{f"mpeg4.{suffix}": _MPEG4 for suffix in ("avi", "mp4", "mkv", "ts", "m4v", "asf")},
    "mpeg4-interlaced.avi": [*_MPEG4, *_FIELDS],
    "mpeg1.mpg": ["-c:v", "mpeg1video", "-b:v", "6M", "-bf", "2", "-g", "12"],
    "vp9.webm": _VP9,
    "vp9-alt-ref.webm": ["-c:v", "libvpx-vp9", "-b:v", "2M", "-auto-alt-ref", "1", "-lag-in-frames", "16"],
    "vp9.ivf": _VP9,
    "vp8.webm": ["-c:v", "libvpx", "-b:v", "2M", "-deadline", "realtime", "-cpu-used", "8", "-g", "24"],
    "av1.mp4": ["-c:v", "libsvtav1", "-preset", "12", "-g", "24"],
    "wmv2.wmv": ["-c:v", "wmv2", "-b:v", "4M", "-g", "24"],
    "msmpeg4.avi": ["-c:v", "msmpeg4", "-b:v", "4M", "-g", "24"],
    "h263.3gp": ["-vf", "scale=176:144", "-c:v", "h263", "-b:v", "4M", "-g", "24"],
    "flv1.flv": ["-c:v", "flv", "-b:v", "4M", "-g", "24"],
    "theora.ogv": ["-c:v", "libtheora", "-q:v", "9", "-g", "24"],
    "mjpeg.avi": ["-c:v", "mjpeg", "-q:v", "1", "-pix_fmt", "yuvj420p"],
    "ffv1.mkv": ["-c:v", "ffv1", "-g", "24"],
    "huffyuv.avi": ["-c:v", "huffyuv", "-pix_fmt", "yuv422p"],
    "prores.mov": ["-c:v", "prores_ks", "-pix_fmt", "yuv422p10le"],
    "qtrle.mov": ["-c:v", "qtrle", "-g", "24"],
    "png.mov": ["-c:v", "png"],
    "zmbv.avi": ["-c:v", "zmbv", "-g", "24"],
    "gif.gif": ["-c:v", "gif"],
    "raw-bgr.avi": ["-c:v", "rawvideo", "-pix_fmt", "bgr24"],
}  # fmt: skip
WANTED = ([0], [13], [119], [1, 100], [22, 23, 24, 25], [47, 70, 71, 72, 95, 96, 118])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("same")
    outputs = [part for name, options in FILES.items() for part in (*options, "-threads", "1", folder / name)]
    ffmpeg(*film_input(), *outputs, stdin=raw_film(FRAMES))
    return folder


@pytest.fixture(params=FILES)
def path(request, folder):
    return folder / request.param


def test_frames_picked_out_are_those_of_a_full_decode(path):
    wanted = decoded_at(path, itertools.chain(*WANTED))
    assert all(number_in(image) == number for number, image in wanted.items())
    for indices in WANTED:
        seen, clip = read_whole_clip(path, indices)
        assert clip.total == FRAMES
        assert [number_in(image) for image in seen] == indices
        # Where compression leaves edges in chroma, the way of upsampling shows in single pixels.
        for image, index in zip(seen, indices, strict=True):
            assert np.abs(image.astype(int) - wanted[index]).mean() < 2


def test_frames_picked_out_are_the_pixels_that_are_read_in_order(path):
    every = read_whole(path, range(FRAMES))
    for indices in WANTED:
        assert_same_frames(read_whole(path, indices), [every[index] for index in indices], within=0)


def test_a_frame_that_is_overwritten_once_it_was_handed_over_harms_no_other(path):
    """Nor does a buffer that is used again show what was in it: the marker would be seen."""
    indices = [0, 1, 2, 20, 21, 22, 23, 24, 25, 60, 90, 119]
    clean = read_whole(path, indices)
    for marker in (0x5A, 0xA5):
        assert_same_frames(read_whole(path, indices, marker=marker), clean, within=0)


# Memory


def small_files(folder):
    """Files of all the kinds that once showed other memory, and how to read them."""
    cases = Path(__file__).parents[2] / "data" / "cases"
    parts = [
        encode(folder / f"part-{place}.ts", part=Part(size), frames=8, first=8 * place)
        for place, size in enumerate(_SIZE_CHANGES)
    ]
    pieces = [
        encode(folder / f"part-{place}.avi", "mjpeg", Part(size, "yuvj420p"), frames=8, first=8 * place)
        for place, size in enumerate(_SIZE_CHANGES)
    ]
    whole = joined(folder / "sizes.ts", parts)
    cut = folder / "cut.ts"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size * 3 // 5])
    damaged = folder / "damaged.ts"
    data = bytearray(whole.read_bytes())
    for place in np.random.default_rng(0).integers(1000, len(data), 12):
        data[place] ^= 0xFF
    damaged.write_bytes(data)
    odd = encode(folder / "odd.webm", "libvpx-vp9", Part((163, 131)), frames=8)
    narrow = encode(folder / "narrow.mkv", "ffv1", Part((17, 9)), frames=8)
    deep = encode(folder / "deep.mkv", part=Part((98, 54), "yuv422p10le"), frames=8)
    turned = with_matrix(
        encode(folder / "upright.mp4", part=Part((102, 74)), frames=8), folder / "turned.mp4", (0, 1, 1, 0)
    )
    ffmpeg(*film_input((162, 132)), "-vf", "setsar=16/11,setfield=tff", "-c:v", "libx264", "-x264-params", "tff=1",
           folder / "wide.mp4", stdin=raw_film(8, (162, 132)))  # fmt: skip
    files = [
        *(
            (cases / name, {})
            for name in ("ride_interlaced.mp4", "ride_interlaced.ts", "mpeg4.avi", "matrix_hflip.mp4")
        ),
        *((cases / name, {}) for name in ("colr_full709.mkv", "track_first.mp4", "two_second_default.mkv")),
        *(
            (path, {})
            for path in (whole, joined(folder / "sizes.avi", pieces), cut, damaged, odd, narrow, deep, turned)
        ),
        *((folder / "wide.mp4", {"square_pixels": square}) for square in (False, True)),
        (DEMO_VIDEO, {}),
    ]
    return [[str(path), [0, 1, 4, 5, 6], options] for path, options in files]


@pytest.fixture(scope="module")
def requests(tmp_path_factory):
    return small_files(tmp_path_factory.mktemp("kinds"))


@pytest.fixture(scope="module")
def plain(requests):
    """The digests of all files, read one after the other in this process."""
    return digests(requests)


def with_marker(argument, byte):
    """The output of `frame_digests` where the allocator fills memory with a marker, its complement when it is freed.

    That is what FFmpeg's buffers, NumPy's arrays and OpenCV's matrices are made of.
    """
    environment = {**os.environ, "MALLOC_PERTURB_": str(byte), "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"}
    command = [sys.executable, frame_digests.__file__, argument]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="MALLOC_PERTURB_ is glibc's")


@needs_glibc
@pytest.mark.parametrize("byte", [0x5A, 0xA5])
def test_no_frame_depends_on_what_memory_held_before(requests, plain, byte):
    assert dict(zip(_names(requests), with_marker(json.dumps(requests), byte), strict=True)) == dict(
        zip(_names(requests), plain, strict=True)
    )


@needs_glibc
def test_the_marker_reaches_memory_that_no_one_writes():
    # Otherwise nothing above would be tested.
    one, other, again = with_marker("unwritten", 0x5A), with_marker("unwritten", 0xA5), with_marker("unwritten", 0x5A)
    assert one == again
    assert all(first != second for first, second in zip(one, other, strict=True))
    assert one == [digest_of([np.full(size, 0xA5, np.uint8)]) for size in (4800, 61440, 1244160, 6220800)]


def test_no_frame_depends_on_the_video_that_was_read_before(requests, plain):
    backwards = digests(requests[::-1])[::-1]
    assert dict(zip(_names(requests), backwards, strict=True)) == dict(zip(_names(requests), plain, strict=True))
    last = requests[-1]
    for request, alone in zip(requests, plain, strict=True):
        read_whole(last[0], range(6))
        assert digests([request]) == [alone], request[0]
        last = request


def test_no_frame_depends_on_arrays_that_numpy_does_not_clear(requests, plain, monkeypatch):
    honest = np.empty

    def marked(*arguments, **options):
        array = honest(*arguments, **options)
        if array.dtype == np.uint8:
            array[...] = 0xA5
        return array

    monkeypatch.setattr(np, "empty", marked)
    assert digests(requests) == plain


def _names(requests):
    return [f"{Path(path).name} {options}" for path, _, options in requests]
