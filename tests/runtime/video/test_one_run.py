"""Files that tell, without being opened as a video, that each picture depends on the one before."""

import math
import time

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.numbered_clips import Recipe, numbered_frame
from xclip_runtime.video import matroska
from xclip_runtime.video.one_run import is_one_run

CONTAINERS = ["mp4", "mkv", "ts"]


@pytest.fixture(scope="module")
def encode(clip_folder):
    """Encode 60 frames."""

    def encode(container, *, gop=1000, bframes=0, frames=60):
        name = f"one-run-{gop}-{bframes}-{frames}.{container}"
        return Recipe(name, gop=gop, frames=frames, options={"bf": str(bframes)}).encode(clip_folder)

    return encode


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_video_with_one_keyframe_and_no_b_pictures_is_one_run(encode, container):
    assert is_one_run(encode(container), math.inf)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_video_with_a_second_keyframe_is_none(encode, container):
    assert not is_one_run(encode(container, gop=24), math.inf)


@pytest.mark.parametrize("container", CONTAINERS)
def test_a_video_with_b_pictures_is_none(encode, container):
    assert not is_one_run(encode(container, bframes=2), math.inf)


@pytest.mark.parametrize("container", ["mkv", "ts"])
def test_a_keyframe_beyond_patience_does_not_count(encode, container):
    clip = encode(container, gop=24)
    assert is_one_run(clip, 23)
    assert not is_one_run(clip, 24)


@pytest.mark.parametrize("container", ["mkv", "ts"])
@pytest.mark.parametrize("gop", [24, 1000])
def test_other_tracks_are_passed_over(tmp_path, container, gop):
    path = tmp_path / f"with-sound.{container}"
    with av.open(str(path), "w") as output:
        sound = output.add_stream("mp2", rate=48_000)
        pictures = output.add_stream("libx264", rate=30, options={"bf": "0"})
        pictures.codec_context.gop_size = gop
        pictures.width, pictures.height, pictures.pix_fmt = 64, 64, "yuv420p"
        for number in range(60):
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 1152), np.int16), "s16", "stereo")
            tone.rate, tone.pts = 48_000, number * 1152
            output.mux(sound.encode(tone))
            picture = numbered_frame(number, 64, 64)
            output.mux(pictures.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        output.mux(pictures.encode())
    assert is_one_run(path, math.inf) == (gop == 1000)


@pytest.mark.parametrize(("references", "expected"), [("-PPP", True), ("-PPI", False), ("PPPP", False)])
def test_in_a_block_group_a_picture_without_reference_is_a_keyframe(tmp_path, references, expected):
    element = matroska._element
    groups = [
        element(0xA0, element(0xA1, bytes([0x81, 0, place, 0]) + b"picture") + (element(0xFB, b"\xff") * (kind == "P")))
        for place, kind in enumerate(references)
    ]
    path = tmp_path / "groups.mkv"
    cluster = element(0x1F43B675, element(0xE7, b"\0") + b"".join(groups))
    path.write_bytes(matroska.header("h264", 64, 64, b"") + cluster)
    assert is_one_run(path, math.inf) == expected


@pytest.mark.parametrize("head", [b"", b"RIFF", b"\0\0\1\xba", b"\x1a\x45\xdf\xa3", b"\x47"])
def test_where_the_file_does_not_say_it_is_none(tmp_path, head):
    (tmp_path / "clip").write_bytes(head)
    assert not is_one_run(tmp_path / "clip", math.inf)


def test_a_file_of_endless_small_elements_is_given_up(tmp_path):
    path = tmp_path / "void.mkv"
    path.write_bytes(matroska.header("h264", 64, 64, b"") + b"\xec\x80" * 5_000_000)
    started = time.perf_counter()
    assert not is_one_run(path, math.inf)
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize("container", CONTAINERS)
@given(data=st.data())
def test_damage_is_no_error(encode, container, data):
    content = bytearray(encode(container, frames=12).read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=30)):
        content[place] = data.draw(st.integers(0, 255))
    damaged = encode(container, frames=12).with_suffix(f".damaged.{container}")
    damaged.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert is_one_run(damaged, 75) in (True, False)
