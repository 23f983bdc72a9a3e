"""A video that can be entered at several places is decoded in parts, at once, to the same frames."""

import threading
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from helpers.numbered_clips import Recipe, read_number
from xclip_runtime.errors import VideoTimeoutError
from xclip_runtime.util.cpus import reading
from xclip_runtime.video import FrameTransform, read_clip, uniform_indices
from xclip_runtime.video.pyav import PyAVDecoder
from xclip_runtime.video.threads import ThreadPolicy

TWO_PARTS = ThreadPolicy(cpus=2, pixels_of_a_part=1)
TRANSFORM = FrameTransform("videox")


@pytest.fixture(scope="module")
def clip(clip_folder):
    """200 frames in groups of 12."""
    return Recipe("parts.mp4", frames=200, gop=12).encode(clip_folder)


def numbers(clip):
    return [read_number(frame, cropped=True) for frame in clip.frames]


def read(path, num_frames=8, **options):
    return read_clip(path, num_frames=num_frames, transform=TRANSFORM, policy=TWO_PARTS, **options)


@pytest.fixture
def decoding(monkeypatch):
    """The threads that decode."""
    seen, honest = set(), PyAVDecoder.get_frames_at

    def seeing(*args):
        for frame in honest(*args):
            seen.add(threading.get_ident())
            yield frame

    monkeypatch.setattr(PyAVDecoder, "get_frames_at", seeing)
    return seen


def test_two_parts_of_a_video_are_decoded_at_once(clip, decoding):
    found = read(clip, 4)
    assert (found.method, found.notes) == ("selective", ())
    assert numbers(found) == list(found.indices) == uniform_indices(200, 4).tolist()
    assert len(decoding) == 2


def test_parts_of_a_file_too_large_to_be_held_are_sought(clip, decoding, monkeypatch):
    monkeypatch.setattr("xclip_runtime.video.pyav.BYTES_TO_HOLD", 0)
    monkeypatch.setattr("xclip_runtime.video.pyav.BYTES_TO_SEEK", 0)
    found = read(clip, 8)
    assert (found.method, found.notes) == ("selective", ())
    assert numbers(found) == list(found.indices) == uniform_indices(200, 8).tolist()
    assert len(decoding) == 2


def test_where_several_videos_are_read_none_is_divided(clip, decoding):
    with reading():
        read(clip, 4)
    assert len(decoding) == 1


def test_one_long_group_is_not_divided(clip_folder, decoding):
    read(Recipe("undivided.mp4", frames=200, gop=1000).encode(clip_folder), 4)
    assert len(decoding) == 1


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_that_is_not_as_listed_ends_the_other_and_all_is_read_in_order(clip, part, monkeypatch):
    decoded = [0, 0]
    honest = PyAVDecoder.get_frames_at

    def broken(self, index, spans, parts):
        number = int(spans[0].start > 0)
        for frame in honest(self, index, spans, parts):
            decoded[number] += 1
            if number == part:
                return
            time.sleep(0.01)
            yield frame

    monkeypatch.setattr(PyAVDecoder, "get_frames_at", broken)
    found = read(clip, 32)
    assert found.method == "sequential"
    assert any("do not hold the frames" in note for note in found.notes)
    assert numbers(found) == list(found.indices) == uniform_indices(200, 32).tolist()
    assert decoded[part] == 1
    assert decoded[1 - part] < 40


def test_an_error_in_one_part_ends_the_other_and_is_raised(clip):
    prepared = []

    def fragile(image):
        if threading.current_thread().name == "xclip-read" and read_number(TRANSFORM(image), cropped=True) > 100:
            raise ZeroDivisionError
        time.sleep(0.02)
        prepared.append(1)
        return TRANSFORM(image)

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        read_clip(clip, num_frames=32, transform=fragile, policy=TWO_PARTS)
    assert len(prepared) < 10
    assert threading.active_count() == before


def test_the_time_limit_holds_for_every_part(clip):

    def late(image):
        time.sleep(0.05)
        return TRANSFORM(image)

    with pytest.raises(VideoTimeoutError):
        read_clip(clip, num_frames=100, transform=late, time_limit=0.3, policy=TWO_PARTS)


def test_waiting_for_frames_of_several_parts_counts_once(clip, monkeypatch):
    waited = Counter()

    def late(image):
        waited[threading.get_ident()] += 0.02
        return TRANSFORM(image)

    own_clock = SimpleNamespace(perf_counter=lambda: waited[threading.get_ident()])
    clock = SimpleNamespace(perf_counter=lambda: time.perf_counter() + max(waited.values(), default=0))
    monkeypatch.setattr("xclip_runtime.video.frame_buffer.time", own_clock)
    monkeypatch.setattr("xclip_runtime.video.frame_reader.time", clock)
    found = read_clip(clip, num_frames=32, transform=late, policy=TWO_PARTS)
    assert found.method == "selective"
    assert len(waited) == 2
    assert found.prepare_ms == pytest.approx(32 * 20 / 2)
    assert found.decode_ms > 0
