import fractions
import os
import struct
import subprocess
import sys
import threading
import time

import av
import numpy as np
import pytest

from helpers.numbered_clips import Recipe, read_number
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import (
    NoFramesError,
    VideoDecodeError,
    VideoError,
    VideoLimitError,
    VideoNotFoundError,
    VideoTimeoutError,
)
from xclip_runtime.util import deadline
from xclip_runtime.util.cpus import reading
from xclip_runtime.video import FrameTransform, read_clip, uniform_indices
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.sampling import given

TRANSFORM = FrameTransform("videox")


def numbers(clip):
    return [read_number(frame, cropped=True) for frame in clip.frames]


def read(path, num_frames=8, **options):
    return read_clip(path, num_frames=num_frames, transform=TRANSFORM, **options)


@pytest.fixture(scope="module")
def plain(clip_folder):
    """90 frames at 30 a second."""
    return Recipe("plain.mp4", frames=90).encode(clip_folder)


def test_a_clip_says_what_was_read_and_how(plain):
    clip = read(plain, 32)
    assert clip.frames.shape == (32, 224, 224, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.indices == tuple(uniform_indices(90, 32))
    assert (clip.decoded, clip.total, clip.decoder, clip.codec) == (32, 90, "pyav", "h264")
    assert clip.fps == pytest.approx(30)
    assert clip.decode_ms > 0
    assert clip.prepare_ms > 0
    assert clip.notes == ()


def test_a_video_of_one_frame_repeats_it(clip_folder):
    clip = read(Recipe("one.mp4", frames=1).encode(clip_folder), 32)
    assert clip.indices == (0,) * 32
    assert (clip.decoded, clip.total) == (1, 1)
    assert np.all(clip.frames == clip.frames[0])


def test_a_path_object_and_odd_characters_are_fine(plain, tmp_path):
    path = tmp_path / "ein Läufer, 走る %d.mp4"
    path.write_bytes(plain.read_bytes())
    assert read(path).total == 90


def test_colours_come_out_red_first(tmp_path):
    path = tmp_path / "red.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        image = np.full((64, 64, 3), (200, 30, 60), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())
    assert np.abs(read(path, 1).frames.mean((0, 1, 2)) - (200, 30, 60)).max() < 6


def test_the_decoder_goes_on_while_a_frame_is_prepared(plain, monkeypatch):
    honest, waited = PyAVDecoder.get_frames_at, []

    def waiting_for_the_next(*args):
        for frame in honest(*args):
            asked = threading.Event()
            yield frame._replace(
                to_rgb=lambda frame=frame, asked=asked: waited.append(asked.wait(10)) or frame.to_rgb()
            )
            asked.set()

    monkeypatch.setattr(PyAVDecoder, "get_frames_at", waiting_for_the_next)
    assert numbers(read(plain)) == uniform_indices(90, 8).tolist()
    assert waited == [True] * 8


def test_the_decoder_waits_for_a_transform_that_is_slower(plain):
    def late(image):
        time.sleep(0.02)
        return TRANSFORM(image)

    clip = read_clip(plain, num_frames=32, transform=late)
    assert numbers(clip) == uniform_indices(90, 32).tolist()
    assert clip.prepare_ms > 200


def test_where_several_videos_are_read_each_prepares_its_own_frames(plain):
    seen = set()
    with reading():
        read_clip(plain, num_frames=8, transform=lambda image: seen.add(threading.current_thread().name) or image)
    assert seen == {"xclip-read"}


def test_an_error_of_a_transform_is_raised(plain):
    with pytest.raises(ZeroDivisionError):
        read_clip(plain, num_frames=8, transform=lambda image: 1 // 0)


# Files that are no videos


def test_a_missing_file_is_named():
    with pytest.raises(VideoNotFoundError, match=r"^no such file: nowhere/ride\.mp4: check the path$"):
        read("nowhere/ride.mp4")


def test_a_path_below_a_file_is_not_found(plain):
    with pytest.raises(VideoNotFoundError, match="no such file"):
        read(plain / "inner.mp4")


def test_a_path_with_a_null_byte_is_not_found():
    with pytest.raises(VideoNotFoundError, match="cannot be read"):
        read("ride\0.mp4")


def test_a_directory_is_no_video(tmp_path):
    with pytest.raises(VideoDecodeError, match="is a directory: pass a video file, or to the command a folder"):
        read(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_named_pipe_is_refused_instead_of_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    with pytest.raises(VideoDecodeError, match="not a regular file"):
        read(tmp_path / "pipe.mp4")


def sound(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), "fltp", "mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_an_empty_file_is_named_as_such(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoDecodeError, match=r"empty \(0 bytes\)"):
        read(tmp_path / "empty.mp4")


@pytest.mark.parametrize(
    "content", [b"not a video at all\n" * 50, b"\0" * 4096, b"#EXTM3U\nhttp://127.0.0.1:9/a.ts\n", b"\x1a\x45\xdf\xa3"]
)
def test_a_file_that_only_claims_to_be_a_video_is_refused_in_one_line_and_in_silence(tmp_path, capfd, content):
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError) as error:
        read(path)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_sound_file_has_no_video_track(tmp_path):
    path = sound(tmp_path / "sound.mp4")
    with pytest.raises(NoFramesError, match="no video track"):
        read(path)


def test_an_mp4_cut_before_its_index_cannot_be_opened(plain, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    with pytest.raises(VideoDecodeError, match="cut short"):
        read(path)


def test_a_video_cut_short_is_sampled_over_the_frames_that_are_there(clip_folder, tmp_path):
    whole = Recipe("whole.mkv", frames=90).encode(clip_folder)
    path = tmp_path / "half.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = read(path)
    assert 10 < clip.total < 80
    assert numbers(clip) == list(clip.indices) == uniform_indices(clip.total, 8).tolist()
    assert any("promises" in note for note in clip.notes)


PLAYLISTS = {
    "list.m3u8": b"#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nplain.ts\n#EXT-X-ENDLIST\n",
    "list.ffconcat": b"ffconcat version 1.0\nfile plain.ts\n",
    "stream.sdp": b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n",
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_a_file_that_names_others_is_refused(clip_folder, tmp_path, name):
    (tmp_path / "plain.ts").write_bytes(Recipe("plain.ts", frames=90).encode(clip_folder).read_bytes())
    (tmp_path / name).write_bytes(PLAYLISTS[name])
    with pytest.raises(VideoDecodeError, match="is a playlist, an image or of another format"):
        read(tmp_path / name)


def test_an_image_is_no_video(tmp_path):
    with av.open(str(tmp_path / "image%d.png"), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.width = stream.height = 64
        stream.pix_fmt = "rgb24"
        container.mux(stream.encode(av.VideoFrame(64, 64, "rgb24")))
        container.mux(stream.encode())
    with pytest.raises(VideoDecodeError, match="is a playlist, an image or of another format"):
        read(tmp_path / "image1.png")


@pytest.mark.parametrize(
    "name",
    [
        "2024-05-01T12:30:45.mp4",
        "T12:30/clip.mp4",
        "Movie: Title.mp4",
        "file:x.mp4",
        "concat:x.mp4|y.mp4",
        "-0Abc.mp4",
        "image%03d.mp4",
        "line\nbreak.mp4",
        "n" * 251 + ".mp4",
        f"{'d' * 200}/{'n' * 200}.mp4",
        os.fsdecode(b"caf\xe9.mp4"),
    ],
)
def test_a_name_is_that_of_a_file_whatever_it_looks_like(tmp_path, monkeypatch, name):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).symlink_to(DEMO_VIDEO)
    monkeypatch.chdir(tmp_path)
    assert read(name).total == 75
    assert read(tmp_path / name).total == 75


# Containers that lie


def with_avi_count(source, target, count):
    """A copy of an AVI whose headers give another number of frames."""
    data = bytearray(source.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, count)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, count)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("count", [0, 1, 40, 91, 100_000, 2**31 - 1])
def test_a_wrong_frame_count_in_the_container_does_not_matter(clip_folder, tmp_path, count):
    source = Recipe("count.avi", "mjpeg", frames=90, pix_fmt="yuvj420p").encode(clip_folder)
    clip = read(with_avi_count(source, tmp_path / "lie.avi", count))
    assert clip.total == 90
    assert numbers(clip) == list(clip.indices) == uniform_indices(90, 8).tolist()


def test_a_program_stream_which_has_no_frame_count_is_decoded_once_at_most(clip_folder, monkeypatch):
    source = Recipe("count.mpg", "mpeg2video", frames=90).encode(clip_folder)
    passes, honest = [], PyAVDecoder.decode
    monkeypatch.setattr(PyAVDecoder, "decode", lambda self: passes.append(1) or honest(self))
    clip = read(source)
    assert numbers(clip) == list(clip.indices) == uniform_indices(90, 8).tolist()
    assert len(passes) <= 1
    assert clip.notes == ()


def test_only_what_the_wanted_frames_depend_on_is_decoded(clip_folder, monkeypatch):
    clip = Recipe("astray.mp4", frames=200).encode(clip_folder)
    decoded, honest = [], PyAVDecoder.get_frames_at

    def counted(*args):
        for frame in honest(*args):
            decoded.append(frame)
            yield frame

    monkeypatch.setattr(PyAVDecoder, "get_frames_at", counted)
    read_back = read(clip, 2)
    assert (read_back.method, numbers(read_back)) == ("selective", [50, 150])
    assert len(decoded) < 30


@pytest.mark.parametrize("lie", ["a frame less", "another time"])
def test_packets_that_lie_are_noticed(clip_folder, lie, monkeypatch):
    clip = Recipe("astray.mp4", frames=200).encode(clip_folder)
    honest = PyAVDecoder.scan

    def lying(self, check_time):
        index = honest(self, check_time)
        if lie == "a frame less":
            return type(index)(index.packets, index.places[:-1], index.times[:-1] + (index.times[:-1] > 3000))
        return type(index)(index.packets, index.places, index.times + 1.0)

    monkeypatch.setattr(PyAVDecoder, "scan", lying)
    read_back = read(clip, 2)
    assert (read_back.total, read_back.method) == (200, "sequential")
    assert numbers(read_back) == list(read_back.indices) == uniform_indices(200, 2).tolist()
    assert any("do not hold the frames" in note for note in read_back.notes)


@pytest.mark.parametrize(
    ("name", "codec"), [("k.mp4", "libx264"), ("k.avi", "mpeg4"), ("k.ts", "mpeg2video"), ("k.webm", "libvpx-vp9")]
)
def test_packets_that_only_claim_to_be_keyframes_are_noticed(clip_folder, name, codec, monkeypatch):
    clip = Recipe(name, codec, frames=100, gop=50).encode(clip_folder)
    honest = PyAVDecoder.scan

    def lying(self, check_time):
        index = honest(self, check_time)
        return type(index)([packet._replace(keyframe=True) for packet in index.packets], index.places, index.times)

    monkeypatch.setattr(PyAVDecoder, "scan", lying)
    read_back = read(clip, 2)
    assert (read_back.total, read_back.method) == (100, "sequential")
    assert numbers(read_back) == list(read_back.indices) == uniform_indices(100, 2).tolist()


def test_an_absurd_frame_count_takes_no_memory(plain, monkeypatch):
    class Boasting(PyAVDecoder):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            self.header_frame_count = 10**12

        def scan(self, check_time):
            return None

    monkeypatch.setattr("xclip_runtime.video.read.PyAVDecoder", Boasting)
    assert numbers(read(plain)) == uniform_indices(90, 8).tolist()


def test_a_damaged_packet_costs_only_the_frames_that_need_it(plain, tmp_path):
    with av.open(str(plain)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(plain.read_bytes())
    # The last packets of the first group of pictures: the length of their first unit becomes nonsense.
    for packet in packets[18:22]:
        data[packet.pos : packet.pos + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    clip = read(path, 80)
    assert 80 <= clip.total < 90
    assert numbers(clip)[-4:] == [index + 90 - clip.total for index in clip.indices[-4:]]


def test_damage_that_the_codec_conceals_is_read_in_order_and_noted(clip_folder, tmp_path):
    data = Recipe("concealed.ts", "mpeg2video", frames=100, size=(320, 256)).encode(clip_folder).read_bytes()
    packets = [data[place : place + 188] for place in range(0, len(data), 188)]
    kept = [packet for place, packet in enumerate(packets) if place < 20 or place % 40 != 17]
    (tmp_path / "lost.ts").write_bytes(b"".join(kept))
    clip = read(tmp_path / "lost.ts", 50)
    assert clip.method == "sequential"
    assert any(note.startswith("damaged: ") and note.endswith("are concealed") for note in clip.notes)


def test_frames_that_a_damaged_file_gives_only_once_are_stood_in_for(plain, monkeypatch):
    class Forgetful(PyAVDecoder):
        passes = 0

        def scan(self, check_time):
            self.packet_count = 150

        def decode(self):
            self.passes += 1
            for number, frame in enumerate(super().decode()):
                if self.passes > 1 and number == 50:
                    return
                yield frame

    monkeypatch.setattr("xclip_runtime.video.read.PyAVDecoder", Forgetful)
    clip = read(plain)
    # Kept of the first pass, over 150 promised frames: 9, 28, 46, 65, 84. Wanted of 90: 5, 16, 28, 39, 50, 61, 73, 84.
    assert numbers(clip) == list(clip.indices) == [5, 16, 28, 39, 46, 65, 65, 84]
    assert any("stand in" in note for note in clip.notes)


def test_a_program_stream_that_begins_in_the_middle_is_read_as_it_is_shown(clip_folder, tmp_path):
    source = Recipe("open.mkv", "mpeg2video", options={"bf": "2"}).encode(clip_folder)
    path = tmp_path / "middle.mpg"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(video=0) if packet.size]
        second = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second:]:
            packet.stream = stream
            output.mux(packet)
    clip = read(path)
    # The first two frames behind frame 24 depend on what was cut off, and players leave them out.
    assert clip.total == 176
    assert numbers(clip) == [24 + index for index in clip.indices]


def test_frames_packed_two_in_a_packet_are_found(clip_folder, tmp_path):
    # DivX and XviD: a B frame goes with the one before, and an empty frame takes its place.
    source = Recipe("unpacked.avi", "mpeg4", options={"bf": "1"}).encode(clip_folder)
    path = tmp_path / "packed.avi"
    vop, mark, empty = b"\0\0\1\xb6", b"\0\0\1\xb2DivX503b1393p", b"\0\0\1\xb6\x50\x4f"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        track = container.streams.video[0]
        stream = output.add_stream_from_template(track)
        stored = [bytes(packet) for packet in container.demux(track) if packet.size]
        held = list(stored)
        for place, data in enumerate(stored):
            if data[data.find(vop) + 4] >> 6 == 2:
                held[place - 1 : place + 1] = [held[place - 1] + data, empty]
        held[0] = held[0].replace(vop, mark + vop, 1)
        for time, data in enumerate(held):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, time, time, track.time_base
            output.mux(packet)
    for count in (8, 50):
        clip = read(path, count)
        assert clip.total == 200
        assert numbers(clip) == list(clip.indices)


def test_frames_of_vp8_that_are_never_shown_do_not_count(clip_folder, tmp_path):
    source = Recipe("shown.webm", "libvpx", options={"deadline": "realtime", "cpu-used": "8"}).encode(clip_folder)
    path = tmp_path / "hidden.webm"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        track = container.streams.video[0]
        stream = output.add_stream_from_template(track)
        for place, stored in enumerate(packet for packet in container.demux(track) if packet.size):
            data = bytearray(bytes(stored))
            if place % 20 == 10:
                data[0] &= ~0x10
            packet = av.Packet(bytes(data))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, stored.pts, stored.dts, track.time_base
            packet.is_keyframe = stored.is_keyframe
            output.mux(packet)
    shown = [number for number in range(200) if number % 20 != 10]
    assert read(source).method == "selective"
    clip = read(path)
    assert (clip.total, clip.method) == (190, "sequential")
    assert numbers(clip) == [shown[index] for index in clip.indices]


@pytest.mark.parametrize("shown", [None, (0, 2.99), (0, 2.5), (0.1, 2.9)])
def test_frames_that_an_edit_list_hides_do_not_count(tmp_path, shown):
    path = Recipe("edits.mp4", frames=90, shown=shown).encode(tmp_path)
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
    assert (frames < 90) == (shown not in (None, (0, 2.99)))
    clip = read(path)
    assert (clip.total, clip.method) == (frames, "selective")
    assert not any("frames" in note for note in clip.notes)


# Tracks, shapes and limits


def with_tracks(path, *tracks):
    """Encode a video of several video tracks, each of one colour; of a track: size, frames, colour, disposition."""
    with av.open(str(path), "w") as container:
        streams = []
        for (width, height), _, _, disposition in tracks:
            stream = container.add_stream("libx264", rate=25)
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
            stream.disposition = disposition
            streams.append(stream)
        for stream, ((width, height), frames, colour, _) in zip(streams, tracks, strict=True):
            for _ in range(frames):
                image = np.full((height, width, 3), colour, np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
            container.mux(stream.encode())
    return path


RED, BLUE = (200, 30, 30), (30, 30, 200)
DEFAULT = av.stream.Disposition.default


def colour_of(clip):
    return "red" if clip.frames[..., 0].mean() > clip.frames[..., 2].mean() else "blue"


@pytest.mark.parametrize(
    ("name", "tracks", "colour"),
    [
        pytest.param("a.mp4", [((64, 64), 1, RED, DEFAULT), ((96, 64), 30, BLUE, 0)], "blue", id="a thumbnail first"),
        pytest.param(
            "b.mp4", [((64, 64), 30, RED, DEFAULT), ((96, 64), 30, BLUE, 0)], "red", id="the default is first"
        ),
        pytest.param("c.mkv", [((64, 64), 30, RED, DEFAULT), ((96, 64), 30, BLUE, 0)], "red", id="first in Matroska"),
        pytest.param("d.mkv", [((64, 64), 30, RED, 0), ((96, 64), 30, BLUE, DEFAULT)], "blue", id="the second is"),
    ],
)
def test_the_best_track_is_read(tmp_path, name, tracks, colour):
    path = with_tracks(tmp_path / name, *tracks)
    assert colour_of(read(path)) == colour
    assert [colour_of(read(path, track=number)) for number in (0, 1)] == ["red", "blue"]


def test_a_track_that_there_is_not_is_refused(plain):
    with pytest.raises(VideoError, match="has 1 video tracks, and none of number 1: count them from 0"):
        read(plain, track=1)


def test_pixels_are_taken_as_they_are_unless_square_ones_are_asked_for(tmp_path):
    path = tmp_path / "anamorphic.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 96, "yuv420p"
        stream.sample_aspect_ratio = fractions.Fraction(2)
        for _ in range(10):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((96, 64, 3), np.uint8), "rgb24")))
        container.mux(stream.encode())

    def shape(**options):
        return read_clip(path, num_frames=2, transform=np.copy, **options).frames.shape[1:3]

    assert shape() == (96, 64)
    assert shape(square_pixels=True) == (96, 128)


def test_a_video_that_is_too_large_or_too_long_is_refused_with_the_limit(plain):
    with pytest.raises(VideoLimitError, match="160x128 pixels, at most 20000 are allowed"):
        read(plain, max_pixels=20_000)
    with pytest.raises(VideoLimitError, match="lasts 3 s, at most 2 s are allowed"):
        read(plain, max_duration=2)
    assert read(plain, max_pixels=160 * 128, max_duration=3.1).total == 90


def test_frames_that_grow_beyond_the_limit_are_refused(clip_folder, tmp_path):
    parts = [Recipe(f"{side}.ts", frames=30, size=(side, side)).encode(clip_folder) for side in (96, 192)]
    path = tmp_path / "growing.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    with pytest.raises(VideoLimitError, match="192x192 pixels, at most 10000 are allowed"):
        read(path, max_pixels=10_000)


def test_each_frame_has_its_own_size(clip_folder, tmp_path):
    parts = [Recipe(f"{w}x{h}.ts", frames=30, size=(w, h)).encode(clip_folder) for w, h in ((160, 96), (96, 192))]
    path = tmp_path / "turning.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    shapes = []
    read_clip(path, num_frames=60, transform=lambda frame: shapes.append(frame.shape) or TRANSFORM(frame))
    assert sorted(set(shapes)) == [(96, 160, 3), (192, 96, 3)]


# Ranges and strategies


@pytest.mark.parametrize("frames", [90, 400])
def test_a_range_of_seconds_is_sampled_like_a_video_of_its_own(clip_folder, frames):
    clip = Recipe(f"range-{frames}.mp4", frames=frames).encode(clip_folder)
    part = read(clip, 4, start=1.0, end=2.0)
    assert part.total == 30
    assert part.indices == tuple(30 + uniform_indices(30, 4))
    assert numbers(part) == list(part.indices)
    assert read(clip, 4, start=2.0).total == frames - 60


def test_a_range_counts_seconds_where_the_frame_rate_varies(clip_folder):
    shown = np.cumsum([20] * 60 + [60] * 60).tolist()
    clip = read(Recipe("slowing.mp4", frames=120, ticks=shown.__getitem__).encode(clip_folder), 4, start=2.0, end=4.0)
    seconds = (np.array(shown) - shown[0]) / 600
    assert set(clip.indices) <= set(np.flatnonzero((seconds >= 2) & (seconds < 4)).tolist())
    assert clip.total == np.count_nonzero((seconds >= 2) & (seconds < 4))
    assert numbers(clip) == list(clip.indices)


def test_a_range_beyond_the_end_says_where_the_video_ends(plain):
    with pytest.raises(VideoError, match=r"no frame from 7 s to 9 s: its last is at 2\.97 s"):
        read(plain, start=7, end=9)


@pytest.mark.parametrize(("start", "end"), [(-1, None), (2, 2), (3, 1), (float("nan"), None), (0, float("nan"))])
def test_a_senseless_range_is_refused(plain, start, end):
    with pytest.raises(ValueError, match="0 <= start < end"):
        read(plain, start=start, end=end)


def test_other_strategies_read_the_frames_that_they_choose(plain):
    assert numbers(read(plain, 4, sampling=given([80, 3, 3, 0]))) == [80, 3, 3, 0]


def test_a_frame_that_does_not_exist_is_refused_once_the_video_is_counted(plain):
    with pytest.raises(VideoError, match="frame 90 is asked for: give 0 to 89"):
        read(plain, 2, sampling=given([0, 90]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_frames": 0}, "at least 1"),
        ({"decoder": "ffmpeg"}, "unknown decoder 'ffmpeg': use one of auto, pyav"),
        ({"decoder": "opencv"}, "^OpenCV no longer reads videos: use auto or pyav$"),
    ],
)
def test_senseless_options_are_refused(plain, options, message):
    with pytest.raises(ValueError, match=message):
        read(plain, **options)


# Time, noise and threads


def test_a_decoder_that_hangs_is_left_at_the_time_limit(plain, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(PyAVDecoder, "get_frames_at", lambda *_: iter(lambda: released.wait() and None, None))
    monkeypatch.setattr(deadline, "GRACE", 0)
    try:
        with pytest.raises(VideoTimeoutError, match="takes longer than"):
            read(plain, time_limit=0.1)
    finally:
        released.set()


def test_reading_stops_at_the_time_limit(plain):
    with pytest.raises(VideoTimeoutError, match=r"takes longer than 0\.001 s to read: raise the time limit"):
        read(plain, time_limit=0.001)
    assert read(plain, time_limit=None).total == 90


def test_damaged_frames_leave_stderr_silent(plain, tmp_path):
    data = bytearray(plain.read_bytes())
    start = data.index(b"mdat")
    rng = np.random.default_rng(0)
    for place in rng.integers(start + 1000, data.index(b"moov") - 100, 60):
        data[place] ^= 0xFF
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    script = (
        "import sys\n"
        "from xclip_runtime.video import FrameTransform, read_clip\n"
        "print(read_clip(sys.argv[1], num_frames=8, transform=FrameTransform('videox')).frames.shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=False, timeout=60)
    assert done.stderr == ""
    assert done.stdout == "(8, 224, 224, 3)\n"


def test_threads_read_different_files_at_once(plain, clip_folder):
    other = Recipe("other.mkv", frames=60).encode(clip_folder)
    found = {}

    def work(name):
        path, total = ((plain, 90), (other, 60), ("missing.mp4", 0))[name % 3]
        try:
            found[name] = numbers(read(path)) == uniform_indices(total, 8).tolist()
        except VideoNotFoundError:
            found[name] = total == 0

    workers = [threading.Thread(target=work, args=(name,)) for name in range(9)]
    for thread in workers:
        thread.start()
    for thread in workers:
        thread.join(60)
    assert found == dict.fromkeys(range(9), True)


def test_the_time_spent_adds_up(plain):
    started = time.perf_counter()
    clip = read(plain)
    assert clip.decode_ms + clip.prepare_ms <= (time.perf_counter() - started) * 1e3
