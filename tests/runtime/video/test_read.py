import os
import struct
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace

import av
import cv2
import numpy as np
import pytest

from helpers.numbered_clips import Recipe, read_number
from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import (
    MissingExtraError,
    NoFramesError,
    VideoDecodeError,
    VideoError,
    VideoNotFoundError,
    VideoTimeoutError,
)
from xclip_runtime.util import deadline
from xclip_runtime.video import FrameTransform, frame_reader, opencv, read_clip, threads, uniform_indices
from xclip_runtime.video import read as read_module
from xclip_runtime.video.edits import shown_part
from xclip_runtime.video.opencv import OpenCVDecoder
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.sampling import at_rate, consecutive, given

pytestmark = pytest.mark.usefixtures("many_threads")

TRANSFORM = FrameTransform("videox")


def numbers(clip):
    return [read_number(frame, cropped=True) for frame in clip.frames]


def read(path, num_frames=8, **options):
    return read_clip(path, num_frames=num_frames, transform=TRANSFORM, **options)


@pytest.fixture(scope="module")
def plain(clip_folder):
    """90 frames at 30 a second."""
    return Recipe("plain.mp4", frames=90).encode(clip_folder)


@pytest.fixture
def without_pyav(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(read_module, "find_spec", lambda name: None)


def test_a_clip_says_what_was_read_and_how(plain):
    clip = read(plain, 32)
    assert clip.frames.shape == (32, 224, 224, 3)
    assert clip.frames.dtype == np.uint8
    assert clip.indices == tuple(uniform_indices(90, 32))
    assert (clip.decoded, clip.total, clip.decoder, clip.codec) == (32, 90, "opencv", "h264")
    assert clip.fps == pytest.approx(30)
    assert clip.decode_ms > 0
    assert clip.prepare_ms > 0
    assert clip.notes == ()


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_video_of_one_frame_repeats_it(clip_folder, decoder):
    clip = read(Recipe("one.mp4", frames=1).encode(clip_folder), 32, decoder=decoder)
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
        picture = np.full((64, 64, 3), (200, 30, 60), np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
        container.mux(stream.encode())
    for decoder in ("opencv", "pyav"):
        assert np.abs(read(path, 1, decoder=decoder).frames.mean((0, 1, 2)) - (200, 30, 60)).max() < 6


@pytest.mark.parametrize("decoder", [OpenCVDecoder, PyAVDecoder])
def test_the_decoder_goes_on_while_a_picture_is_prepared(plain, decoder, monkeypatch):
    grabbed, honest = threading.Event(), decoder.grab
    monkeypatch.setattr(decoder, "grab", lambda self: grabbed.set() or honest(self))

    def wait_for_the_next(picture):
        grabbed.clear()
        assert grabbed.wait(10)
        return TRANSFORM(picture)

    clip = read_clip(plain, num_frames=8, transform=wait_for_the_next, decoder=decoder.name)
    assert numbers(clip) == uniform_indices(90, 8).tolist()


def test_the_decoder_waits_for_a_transform_that_is_slower(plain):
    def late(picture):
        time.sleep(0.02)
        return TRANSFORM(picture)

    clip = read_clip(plain, num_frames=32, transform=late)
    assert numbers(clip) == uniform_indices(90, 32).tolist()
    assert clip.prepare_ms > 200


def test_where_several_videos_are_read_each_prepares_its_own_pictures(plain, monkeypatch):
    monkeypatch.setattr(threads, "_reading", [None])
    seen = set()
    read_clip(plain, num_frames=8, transform=lambda picture: seen.add(threading.current_thread().name) or picture)
    assert seen == {"xclip-read"}
    assert threads._reading == [None]


def test_an_error_of_a_transform_is_raised(plain):
    with pytest.raises(ZeroDivisionError):
        read_clip(plain, num_frames=8, transform=lambda picture: 1 // 0)


# Files that are no videos


def test_a_missing_file_is_named():
    with pytest.raises(VideoNotFoundError, match=r"^no such file: nowhere/ride\.mp4: check the path$"):
        read("nowhere/ride.mp4")


def test_a_path_below_a_file_is_not_found(plain):
    with pytest.raises(VideoNotFoundError, match="cannot be read"):
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
@pytest.mark.parametrize("decoder", ["auto", "opencv", "pyav"])
def test_a_file_that_only_claims_to_be_a_video_is_refused_in_one_line_and_in_silence(tmp_path, capfd, content, decoder):
    path = tmp_path / "text.mp4"
    path.write_bytes(content)
    with pytest.raises(VideoError) as error:
        read(path, decoder=decoder)
    assert "\n" not in str(error.value)
    assert str(path) in str(error.value)
    assert capfd.readouterr().err == ""


def test_a_sound_file_has_no_picture_track(tmp_path):
    path = sound(tmp_path / "sound.mp4")
    with pytest.raises(NoFramesError, match="no picture track"):
        read(path)
    with pytest.raises(VideoDecodeError, match="has no picture track; check that it plays"):
        read(path, decoder="opencv")


def test_an_mp4_cut_before_its_index_cannot_be_opened(plain, tmp_path):
    path = tmp_path / "cut.mp4"
    path.write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    with pytest.raises(VideoDecodeError, match="cut short"):
        read(path)


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_video_cut_short_is_sampled_over_the_frames_that_are_there(clip_folder, tmp_path, decoder):
    whole = Recipe("whole.mkv", frames=90).encode(clip_folder)
    path = tmp_path / "half.mkv"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    clip = read(path, decoder=decoder)
    assert 10 < clip.total < 80
    assert numbers(clip) == list(clip.indices) == uniform_indices(clip.total, 8).tolist()
    assert any("promises" in note for note in clip.notes)


def test_without_pyav_the_error_says_how_to_get_it(plain, clip_folder, without_pyav):
    clip = Recipe("av1.mp4", "libsvtav1", frames=60, options={"svtav1-params": "preset=12"}).encode(clip_folder)
    with pytest.raises(VideoDecodeError, match=r"codec av1: pip install 'xclip-onnx\[av\]' or convert it to MP4"):
        read(clip)
    with pytest.raises(MissingExtraError, match=r"pip install 'xclip-onnx\[av\]'"):
        read(plain, decoder="pyav")
    assert read(plain).decoder == "opencv"


# Containers that lie


def with_avi_count(source, target, count):
    """A copy of an AVI whose headers give another number of frames."""
    data = bytearray(source.read_bytes())
    struct.pack_into("<I", data, data.index(b"avih") + 8 + 16, count)
    struct.pack_into("<I", data, data.index(b"strh") + 8 + 32, count)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("count", [0, 1, 40, 91, 100_000, 2**31 - 1])
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_a_wrong_frame_count_in_the_container_does_not_matter(clip_folder, tmp_path, count, decoder):
    source = Recipe("count.avi", "mjpeg", frames=90, pix_fmt="yuvj420p").encode(clip_folder)
    clip = read(with_avi_count(source, tmp_path / "lie.avi", count), decoder=decoder)
    assert clip.total == 90
    assert numbers(clip) == list(clip.indices) == uniform_indices(90, 8).tolist()


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_program_stream_which_has_no_frame_count_is_decoded_once_at_most(clip_folder, decoder, monkeypatch):
    source = Recipe("count.mpg", "mpeg2video", frames=90).encode(clip_folder)
    passes = []
    honest = frame_reader.Reader._pass
    monkeypatch.setattr(
        frame_reader.Reader, "_pass", lambda *args, **options: passes.append(1) or honest(*args, **options)
    )
    clip = read(source, decoder=decoder)
    assert numbers(clip) == list(clip.indices) == uniform_indices(90, 8).tolist()
    assert len(passes) <= 1
    assert clip.notes == ()


def test_at_the_end_that_the_container_promises_opencv_is_asked_once(plain, monkeypatch):
    asked = []
    monkeypatch.setattr(opencv, "_grab_beyond_damage", asked.append)
    assert read(plain).total == 90
    assert asked == []


@pytest.fixture
def cut_by_its_header(clip_folder, tmp_path, monkeypatch):
    """An AVI that promises 40 of its 90 frames, and a decoder that believes it, as that of OpenCV 4.8 does."""
    honest = OpenCVDecoder.grab
    monkeypatch.setattr(OpenCVDecoder, "grab", lambda self: self._grabbed <= self.expected and honest(self))
    source = Recipe("count.avi", "mjpeg", frames=90, pix_fmt="yuvj420p").encode(clip_folder)
    path = with_avi_count(source, tmp_path / "lie.avi", 40)
    path.write_bytes(path.read_bytes().replace(b"idx1", b"JUNK"))
    return path


def test_pyav_reads_the_rest_of_an_avi_that_opencv_ends_early(cut_by_its_header):
    clip = read(cut_by_its_header)
    assert (clip.decoder, clip.total) == ("pyav", 90)
    assert clip.notes[0] == "OpenCV reads no further than the frame count of the container: read with PyAV"


def test_an_avi_that_opencv_ends_early_is_noted_without_pyav(cut_by_its_header, without_pyav):
    clip = read(cut_by_its_header)
    assert (clip.decoder, clip.total) == ("opencv", 41)
    assert "pip install 'xclip-onnx[av]' to see the rest" in clip.notes[0]


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_only_what_the_wanted_frames_depend_on_is_decoded(clip_folder, decoder, list_all, monkeypatch):
    clip = Recipe("astray.mp4", frames=200).encode(clip_folder)
    cls = {"opencv": OpenCVDecoder, "pyav": PyAVDecoder}[decoder]
    fed = []
    honest = cls.excerpt
    monkeypatch.setattr(cls, "excerpt", lambda self, index, ex, n: fed.append(ex.packets) or honest(self, index, ex, n))
    read_back = read(clip, 2, decoder=decoder)
    assert (read_back.method, numbers(read_back)) == ("selective", [50, 150])
    assert sum(map(len, fed)) < 30


@pytest.mark.parametrize(
    ("decoder", "lie"), [("opencv", "a picture less"), ("pyav", "a picture less"), ("pyav", "another time")]
)
def test_a_list_of_packets_that_lies_is_noticed(clip_folder, decoder, lie, list_all, monkeypatch):
    clip = Recipe("astray.mp4", frames=200).encode(clip_folder)
    cls = {"opencv": OpenCVDecoder, "pyav": PyAVDecoder}[decoder]
    honest = cls.scan

    def lying(self, patience):
        index = honest(self, patience)
        if lie == "a picture less":
            return replace(index, times=index.times[:-1], numbers=np.where(index.numbers == 199, -1, index.numbers))
        return replace(index, times=index.times + 1.0)

    monkeypatch.setattr(cls, "scan", lying)
    read_back = read(clip, 2, decoder=decoder)
    assert (read_back.total, read_back.method) == (200, "sequential")
    assert numbers(read_back) == list(read_back.indices) == uniform_indices(200, 2).tolist()
    assert any("do not hold the pictures" in note for note in read_back.notes)


def test_an_absurd_frame_count_takes_no_memory(plain, monkeypatch):
    class Boasting(OpenCVDecoder):
        def __init__(self, path):
            super().__init__(path)
            self.expected = 10**12

        def scan(self, patience):
            return None

    monkeypatch.setattr(read_module, "OpenCVDecoder", Boasting)
    assert numbers(read(plain)) == uniform_indices(90, 8).tolist()


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
def test_a_damaged_packet_costs_only_the_frames_that_need_it(plain, tmp_path, decoder):
    with av.open(str(plain)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
    data = bytearray(plain.read_bytes())
    # The last packets of the first group of pictures: the length of their first unit becomes nonsense.
    for packet in packets[18:22]:
        data[packet.pos : packet.pos + 4] = b"\xff\xff\xff\xff"
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    clip = read(path, decoder=decoder)
    assert 80 <= clip.total < 90
    assert numbers(clip)[-4:] == [index + 90 - clip.total for index in clip.indices[-4:]]


def test_frames_that_a_damaged_file_gives_only_once_are_stood_in_for(plain, monkeypatch):
    class Forgetful(OpenCVDecoder):
        opened = 0

        def __init__(self, path):
            super().__init__(path)
            self.expected = 150
            Forgetful.opened += 1
            self.again = Forgetful.opened > 1

        def grab(self):
            return not (self.again and self._grabbed == 50) and super().grab()

    monkeypatch.setattr(read_module, "OpenCVDecoder", Forgetful)
    clip = read(plain)
    # Kept of the first pass, over 150 promised frames: 9, 28, 46, 65, 84. Wanted of 90: 5, 16, 28, 39, 50, 61, 73, 84.
    assert numbers(clip) == list(clip.indices) == [5, 16, 28, 39, 46, 65, 65, 84]
    assert any("stand in" in note for note in clip.notes)


def test_a_program_stream_that_begins_in_the_middle_is_read_as_it_is_shown(clip_folder, tmp_path, list_all):
    source = Recipe("open.mkv", "mpeg2video", options={"bf": "2"}).encode(clip_folder)
    path = tmp_path / "middle.mpg"
    with av.open(str(source)) as container, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(container.streams.video[0])
        packets = [packet for packet in container.demux(video=0) if packet.size]
        second = [place for place, packet in enumerate(packets) if packet.is_keyframe][1]
        for packet in packets[second:]:
            packet.stream = stream
            output.mux(packet)
    for decoder in ("opencv", "pyav"):
        clip = read(path, decoder=decoder)
        # The first two pictures behind frame 24 depend on what was cut off, and players leave them out.
        assert clip.total == 176
        assert numbers(clip) == [24 + index for index in clip.indices]


def test_pictures_packed_two_in_a_packet_are_found(clip_folder, tmp_path, list_all):
    # DivX and XviD: a B picture goes with the one before, and an empty picture takes its place.
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
    for decoder in ("opencv", "pyav"):
        clip = read(path, decoder=decoder)
        assert clip.total == 200
        assert numbers(clip) == list(clip.indices)
        assert clip.notes == () or decoder == "pyav"


def test_pictures_of_vp8_that_are_never_shown_do_not_count(clip_folder, tmp_path, list_all):
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
    for decoder in ("opencv", "pyav"):
        assert read(source, decoder=decoder).method == "selective"
        clip = read(path, decoder=decoder)
        assert (clip.total, clip.method) == (190, "sequential")
        assert not any("do not hold the pictures" in note for note in clip.notes)
        assert numbers(clip) == [shown[index] for index in clip.indices]


def test_an_avi_that_may_hold_more_than_its_header_says_is_not_read_by_its_packets(clip_folder, tmp_path, list_all):
    source = Recipe("turns.avi", "mpeg4", frames=90).encode(clip_folder)
    assert read(source, 2, decoder="opencv").method == "selective"
    assert read(with_avi_count(source, tmp_path / "less.avi", 89), 2, decoder="opencv").method == "sequential"


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts"])
@pytest.mark.parametrize(("encoding", "opened"), [(("0", 1000), 1), (("2", 1000), 2), (("0", 24), 2)])
@pytest.mark.usefixtures("list_all")
def test_a_video_of_which_nothing_can_be_left_out_is_opened_once(tmp_path, container, encoding, opened, monkeypatch):
    bframes, gop = encoding
    clip = Recipe(f"run.{container}", frames=90, gop=gop, options={"bf": bframes}).encode(tmp_path)
    paths, honest = [], opencv._open
    monkeypatch.setattr(opencv, "_open", lambda *options: paths.append(options[0]) or honest(*options))
    assert numbers(read(clip, 32, decoder="opencv")) == uniform_indices(90, 32).tolist()
    assert len(paths) == opened


@pytest.mark.parametrize("decoder", [OpenCVDecoder, PyAVDecoder])
@pytest.mark.usefixtures("list_all")
def test_once_the_packets_are_listed_a_few_of_them_are_worth_leaving_out(clip_folder, decoder):
    clip = Recipe("few-droppable.mp4", frames=90, gop=1000, options={"bf": "2"}).encode(clip_folder)
    wanted = uniform_indices(90, 70).tolist()
    assert 0.8 < decoder(str(clip)).scan().excerpt({*wanted, 0, 89}).share < 0.95
    found = read(clip, 70, decoder=decoder.name)
    assert (found.method, numbers(found)) == ("selective", wanted)
    assert read(clip, 90, decoder=decoder.name).method == "sequential"


@pytest.mark.parametrize("bytes_of_a_likely", [0, 1 << 20])
@pytest.mark.parametrize("threads_for_it", [1, 2])
def test_a_file_is_opened_for_what_its_size_makes_likely(clip_folder, bytes_of_a_likely, threads_for_it, monkeypatch):
    clip = Recipe("likely.mp4", frames=90).encode(clip_folder)
    monkeypatch.setattr(threads, "available_cpus", lambda: 2)
    least = 0 if threads_for_it == 2 else 900_000
    monkeypatch.setattr(threads, "_worth_sharing", lambda codec, pixels: pixels >= least)
    monkeypatch.setattr(opencv, "_BYTES_OF_A_LIKELY", bytes_of_a_likely)
    opened, honest = [], opencv._open
    monkeypatch.setattr(opencv, "_open", lambda path, number: opened.append(number) or honest(path, number))
    assert numbers(read(clip, 8, decoder="opencv")) == uniform_indices(90, 8).tolist()
    likely = 1 if bytes_of_a_likely else 2
    assert opened == ([likely] if likely == threads_for_it else [likely, threads_for_it])


@pytest.mark.parametrize("decoder", [OpenCVDecoder, PyAVDecoder])
@pytest.mark.parametrize(("parts", "patience"), [(1, 17.5), (2, 200 * 0.8 / 0.7 / 2)])
@pytest.mark.usefixtures("list_all")
def test_a_list_that_will_not_help_is_not_finished(clip_folder, decoder, parts, patience, monkeypatch):
    monkeypatch.setattr(frame_reader, "decoding_parts", lambda _: parts)
    patiences, honest = [], decoder.scan
    monkeypatch.setattr(decoder, "scan", lambda self, patience: patiences.append(patience) or honest(self, patience))
    monkeypatch.setattr(frame_reader, "is_one_run", lambda *_: False)
    clip = Recipe("one-group.mp4", "mpeg4", frames=200, gop=250).encode(clip_folder)
    assert read(clip, 32, decoder=decoder.name).method == "sequential"
    # Two and a half times the widest gap, 7 frames; or so many that what follows is too short a part.
    assert patiences == [pytest.approx(patience)]


@pytest.mark.parametrize(("shown", "hides"), [(None, False), ((0, 2.99), False), ((0, 2.5), True), ((0.1, 2.9), True)])
def test_an_edit_list_that_hides_pictures_is_seen_without_decoding(tmp_path, shown, hides, list_all):
    path = Recipe("edits.mp4", frames=90, shown=shown).encode(tmp_path)
    assert (shown_part(path) is not None) == hides
    pictures = sum(1 for _ in iter(OpenCVDecoder(str(path)).grab, False))
    assert (pictures < 90) == hides
    clip = read(path, decoder="opencv")
    assert (clip.total, clip.notes) == (pictures, ())


def test_only_an_mp4_can_have_an_edit_list(clip_folder, tmp_path):
    assert shown_part(Recipe("whole.mkv", frames=90).encode(clip_folder)) is None
    (tmp_path / "cut.mp4").write_bytes(Recipe("plain.mp4", frames=90).encode(clip_folder).read_bytes()[:40])
    assert shown_part(tmp_path / "cut.mp4") is None


# Ranges and strategies


@pytest.mark.parametrize("decoder", ["opencv", "pyav"])
@pytest.mark.parametrize("frames", [90, 400])
def test_a_range_of_seconds_is_sampled_like_a_video_of_its_own(clip_folder, decoder, frames):
    clip = Recipe(f"range-{frames}.mp4", frames=frames).encode(clip_folder)
    part = read(clip, 4, start=1.0, end=2.0, decoder=decoder)
    assert part.total == 30
    assert part.indices == tuple(30 + uniform_indices(30, 4))
    assert numbers(part) == list(part.indices)
    assert read(clip, 4, start=2.0, decoder=decoder).total == frames - 60


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
    assert numbers(read(plain, 4, sampling=consecutive(2))) == [41, 43, 45, 47]
    assert numbers(read(plain, 3, sampling=at_rate(10))) == [41, 44, 47]
    assert numbers(read(plain, 4, sampling=given([80, 3, 3, 0]))) == [80, 3, 3, 0]


def test_a_frame_that_does_not_exist_is_refused_once_the_video_is_counted(plain):
    with pytest.raises(VideoError, match="frame 90 is asked for: give 0 to 89"):
        read(plain, 2, sampling=given([0, 90]))


@pytest.mark.parametrize("options", [{"num_frames": 0}, {"decoder": "ffmpeg"}])
def test_senseless_options_are_refused(plain, options):
    with pytest.raises(ValueError, match=r"at least 1|auto, opencv, pyav"):
        read(plain, **options)


# Time, noise and threads


def test_a_decoder_that_hangs_is_left_at_the_time_limit(plain, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(OpenCVDecoder, "grab", lambda self: released.wait() and False)
    monkeypatch.setattr(deadline, "GRACE", 0)
    try:
        with pytest.raises(VideoTimeoutError, match="takes longer than"):
            read(plain, time_limit=0.1, decoder="opencv")
    finally:
        released.set()


@pytest.mark.parametrize("decoder", ["auto", "opencv", "pyav"])
def test_reading_stops_at_the_time_limit(plain, decoder):
    with pytest.raises(VideoTimeoutError, match=r"takes longer than 0\.001 s to read: raise the time limit"):
        read(plain, time_limit=0.001, decoder=decoder)
    assert read(plain, time_limit=None).total == 90


def test_damaged_frames_leave_stderr_silent_and_the_log_level_as_it_was(plain, tmp_path):
    data = bytearray(plain.read_bytes())
    start = data.index(b"mdat")
    rng = np.random.default_rng(0)
    for place in rng.integers(start + 1000, data.index(b"moov") - 100, 60):
        data[place] ^= 0xFF
    path = tmp_path / "damaged.mp4"
    path.write_bytes(data)
    script = (
        "import os, sys, cv2\n"
        "from xclip_runtime.video import FrameTransform, read_clip\n"
        "log = getattr(cv2.utils, 'logging', cv2)\n"
        "before = log.getLogLevel(), dict(os.environ)\n"
        "clip = read_clip(sys.argv[1], num_frames=8, transform=FrameTransform('videox'), decoder=sys.argv[2])\n"
        "assert (log.getLogLevel(), dict(os.environ)) == before\n"
        "print(clip.frames.shape)\n"
    )
    for decoder in ("opencv", "pyav"):
        done = subprocess.run(
            [sys.executable, "-c", script, path, decoder], capture_output=True, text=True, check=False, timeout=60
        )
        assert done.stderr.splitlines()[-1:] == []
        assert done.stdout == "(8, 224, 224, 3)\n"


def test_threads_read_different_files_at_once(plain, clip_folder):
    other = Recipe("other.mkv", frames=60).encode(clip_folder)
    level = getattr(cv2.utils, "logging", cv2).getLogLevel()
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
    assert getattr(cv2.utils, "logging", cv2).getLogLevel() == level


def test_the_time_spent_adds_up(plain):
    started = time.perf_counter()
    clip = read(plain)
    assert clip.decode_ms + clip.prepare_ms <= (time.perf_counter() - started) * 1e3


@pytest.mark.parametrize(("decoder", "reads"), [("opencv", False), ("pyav", True)])
def test_a_name_that_is_no_utf8_never_reaches_opencv_which_would_crash(tmp_path, decoder, reads):
    video = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    video.symlink_to(DEMO_VIDEO)
    context = nullcontext() if reads else pytest.raises(VideoDecodeError, match="rename the file")

    with context:
        assert read_clip(video, num_frames=4, transform=FrameTransform("videox"), decoder=decoder).total > 0
