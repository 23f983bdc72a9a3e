"""Number of decoder threads."""

from __future__ import annotations

import pytest

from xclip_runtime.util.cpus import reading
from xclip_runtime.video.threads import ThreadPolicy


@pytest.mark.parametrize(
    ("cpus", "codec", "size", "expected"),
    [
        pytest.param(1, "h264", (1920, 1080), 1, id="one CPU gains nothing from two"),
        pytest.param(2, "h264", (640, 360), 2, id="one a CPU"),
        pytest.param(2, "unknown", (720, 576), 2, id="one a CPU for a codec without a name"),
        pytest.param(8, "h264", (320, 240), 1, id="one for frames that are decoded in no time"),
        pytest.param(8, "mpeg4", (640, 360), 1, id="one for larger frames of a simple codec"),
        pytest.param(8, "vp9", (352, 288), 8, id="more for small frames of a slow codec"),
        pytest.param(128, "hevc", (1920, 1080), 16, id="never more than sixteen frames at once"),
    ],
)
def test_threads_follow_the_cpus_the_codec_and_the_size(cpus, codec, size, expected):
    assert ThreadPolicy(cpus).threads(codec, size[0] * size[1]) == expected


@pytest.mark.parametrize(
    ("cpus", "parts", "codec", "expected"),
    [
        pytest.param(2, 1, "h264", 3, id="one more where a thread waits for another"),
        pytest.param(2, 1, "mpeg2video", 2, id="one a CPU where changing threads costs more"),
        pytest.param(2, 2, "h264", 1, id="one a part where each has a CPU"),
        pytest.param(3, 2, "h264", 1, id="no CPU is shared"),
        pytest.param(8, 4, "h264", 3, id="as for one with the CPUs of a part"),
        pytest.param(8, 4, "mpeg4", 2, id="as for one of another codec"),
        pytest.param(1, 2, "h264", 1, id="never none"),
    ],
)
def test_excerpts_that_are_decoded_at_once_share_the_cpus(cpus, parts, codec, expected):
    assert ThreadPolicy(cpus).threads(codec, 1280 * 720, parts) == expected


@pytest.mark.parametrize(
    ("cpus", "size", "expected"),
    [
        pytest.param(1, (640, 360), 1, id="one CPU decodes one part"),
        pytest.param(2, (1920, 1080), 2, id="a part a CPU"),
        pytest.param(64, (1920, 1080), 4, id="as many as four of 1080p"),
        pytest.param(64, (1280, 720), 9, id="more of smaller frames"),
        pytest.param(64, (640, 360), 16, id="sixteen at the most"),
        pytest.param(64, (2560, 1440), 2, id="fewer of large frames"),
        pytest.param(64, (3840, 2160), 1, id="4K is decoded as a whole"),
        pytest.param(64, (7680, 4320), 1, id="and what is larger"),
        pytest.param(2, (0, 0), 2, id="a size that the file does not tell"),
    ],
)
def test_parts_follow_the_cpus_and_the_size(cpus, size, expected):
    assert ThreadPolicy(cpus).parts(size[0] * size[1]) == expected


def test_videos_that_are_read_at_once_share_the_cpus_and_are_not_divided():
    policy = ThreadPolicy(8)
    with reading():
        assert policy.threads("h264", 1280 * 720) == 8
        assert policy.parts(1280 * 720) == 8
        with reading():
            assert policy.threads("h264", 1280 * 720) == 4
            assert policy.parts(1280 * 720) == 1
        assert policy.threads("h264", 1280 * 720) == 8


def test_more_videos_than_cpus_have_a_thread_each():
    with reading(), reading(), reading():
        assert ThreadPolicy(2).threads("h264", 1280 * 720) == 1
