"""Damage, and parameters that come once only: right frames, or a note; never others without a word."""

import re
import struct

import av
import numpy as np
import pytest

from helpers.video_files import ffmpeg, read_whole, read_whole_clip
from xclip_runtime.errors import VideoDecodeError, VideoError
from xclip_runtime.video import read_clip
from xclip_runtime.video.options import ReadOptions
from xclip_runtime.video.pyav import PyAVDecoder

_BASELINE = ("-c:v", "libx264", "-bf", "0", "-g", "12", "-profile:v", "baseline", "-preset", "veryfast")
WANTED = [3, 40, 99, 120, 150, 199]


def film(path, *options, codec=_BASELINE, seconds=4):
    ffmpeg("-f", "lavfi", "-i", f"testsrc2=s=160x128:r=25:d={seconds}", *options, *codec, path)
    return path


def assert_as_decoded(path, wanted):
    """The frames are those of a full decode; wrong parameters put them off by 40 grey levels and more."""
    with av.open(str(path)) as container:
        whole = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    for number, seen in zip(wanted, read_whole(path, wanted), strict=True):
        assert np.abs(seen.astype(int) - whole[number]).mean() < 2, number


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """H.264 whose second half has other parameters, which only its first keyframe holds."""
    folder = tmp_path_factory.mktemp("once")
    halves = film(folder / "a.h264", "-crf", "20"), film(folder / "b.h264", "-vf", "hue=h=120", "-crf", "38")
    stream = b""
    for half in halves:
        seen = 0
        for unit in re.split(b"\0\0\0?\1", half.read_bytes())[1:]:
            seen += unit[0] & 31 in (7, 8)
            if unit[0] & 31 not in (7, 8) or seen <= 2:
                stream += b"\0\0\0\1" + unit
    (folder / "once.h264").write_bytes(stream)
    return folder


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "avi", "ts"])
def test_parameters_that_come_once_hold_for_all_that_follows(once, suffix):
    path = once / f"once.{suffix}"
    if not path.exists():
        ffmpeg("-r", "25", "-i", once / "once.h264", "-c", "copy", path)
    assert_as_decoded(path, WANTED)


def flv_tags(data):
    place = 13
    while place + 11 <= len(data):
        size = int.from_bytes(data[place + 1 : place + 4], "big")
        time = int.from_bytes(data[place + 4 : place + 7], "big") | data[place + 7] << 24
        yield data[place], time, data[place + 11 : place + 11 + size]
        place += 11 + size + 4


def flv_tag(kind, time, data):
    header = bytes([kind]) + len(data).to_bytes(3, "big") + (time & 0xFFFFFF).to_bytes(3, "big")
    return header + bytes([time >> 24, 0, 0, 0]) + data + (len(data) + 11).to_bytes(4, "big")


def test_a_new_header_in_the_middle_of_a_file_holds_from_there(tmp_path):
    first = film(tmp_path / "a.flv", "-crf", "20").read_bytes()
    second = film(tmp_path / "b.flv", "-vf", "hue=h=120", "-crf", "38").read_bytes()
    tags = [flv_tag(*tag) for tag in flv_tags(first) if tag[0] == 9 and tag[2][1] != 2]
    tags += [flv_tag(kind, time + 4000, data) for kind, time, data in flv_tags(second) if kind == 9]
    path = tmp_path / "joined.flv"
    path.write_bytes(first[:13] + b"".join(tags))
    assert_as_decoded(path, WANTED)


@pytest.mark.parametrize("damage", ["half", "random"])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        ("mp4", ("-c:v", "libx264", "-bf", "0", "-g", "1000")),
        ("mkv", ("-c:v", "mpeg2video", "-g", "1000", "-q:v", "3")),
        ("mkv", ("-c:v", "mpeg4", "-g", "1000", "-q:v", "3")),
    ],
    ids=["h264", "mpeg2", "mpeg4"],
)
def test_frames_that_depend_on_a_damaged_one_come_with_a_note(tmp_path, suffix, codec, damage):
    path = film(tmp_path / f"whole.{suffix}", codec=codec)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        broken = bytes(packets[30])
    data = path.read_bytes()
    place = data.index(broken)
    middle = place + len(broken) // 2
    noise = np.random.default_rng(0).bytes(len(broken)) if damage == "random" else b"\0" * len(broken)
    path.write_bytes(data[:middle] + noise[: place + len(broken) - middle] + data[place + len(broken) :])

    _, clip = read_whole_clip(path, [10, 60, 90])

    assert any(note.startswith("damaged") for note in clip.notes)
    assert clip.method == "sequential"


def with_exif(frame):
    tag = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x112, 3, 1, 1) + b"\0\0\0\0"
    segment = b"Exif\0\0" + tag
    return frame[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + frame[2:]


@pytest.mark.parametrize("suffix", ["avi", "mov"])
def test_a_camera_that_writes_exif_into_its_frames_is_read(tmp_path, suffix):
    jpegs = ffmpeg("-f", "lavfi", "-i", "testsrc2=s=160x128:r=25:d=1", "-c:v", "mjpeg", "-f", "image2pipe", "-")
    frames = [b"\xff\xd8" + part for part in jpegs.split(b"\xff\xd8")[1:]]
    (tmp_path / "all.mjpeg").write_bytes(b"".join(map(with_exif, frames)))
    path = tmp_path / f"camera.{suffix}"
    ffmpeg("-f", "mjpeg", "-i", tmp_path / "all.mjpeg", "-c", "copy", path)
    assert_as_decoded(path, [0, 7, 20])


def test_a_file_that_is_replaced_while_it_is_read_is_not_mixed_with_the_other(tmp_path):
    path, other = film(tmp_path / "a.mp4"), film(tmp_path / "b.mp4", "-vf", "hue=h=120")
    decoder = PyAVDecoder(str(path), ReadOptions())
    next(decoder.decode())
    other.replace(path)
    with pytest.raises(VideoDecodeError, match="was replaced while it was being read"):
        next(decoder.decode())
    decoder.close()


def test_frames_of_several_sizes_need_a_transform(tmp_path):
    small, large = film(tmp_path / "a.ts", seconds=1), film(tmp_path / "b.ts", "-s", "320x256", seconds=1)
    (tmp_path / "both.ts").write_bytes(small.read_bytes() + large.read_bytes())
    with pytest.raises(VideoError, match="differ in size: give a transform"):
        read_clip(tmp_path / "both.ts", num_frames=8, transform=lambda frame: frame)
