"""A video that can be entered at several places is decoded in parts, at once, to the same frames."""

import threading
import time

import pytest

from helpers.numbered_clips import Recipe, read_number
from xclip_runtime.errors import VideoTimeoutError
from xclip_runtime.video import FrameTransform, opencv, read_clip, threads, uniform_indices
from xclip_runtime.video.opencv import OpenCVDecoder, OpenCVExcerpt
from xclip_runtime.video.pyav import PyAVDecoder

pytestmark = pytest.mark.usefixtures("two_parts")

TRANSFORM = FrameTransform("videox")


@pytest.fixture(scope="module")
def clip(clip_folder):
    """200 frames in groups of 12."""
    return Recipe("parts.mp4", frames=200, gop=12).encode(clip_folder)


def numbers(clip):
    return [read_number(frame, cropped=True) for frame in clip.frames]


def read(path, num_frames=8, **options):
    return read_clip(path, num_frames=num_frames, transform=TRANSFORM, **options)


def read_in(parts, path, cls, monkeypatch):
    """Read a clip, whose pictures so many threads grab."""
    seen, honest = set(), cls.grab
    monkeypatch.setattr(cls, "grab", lambda self: seen.add(threading.get_ident()) or honest(self))
    clip = read(path, 4, decoder="opencv" if cls is OpenCVExcerpt else "pyav")
    assert clip.method == "selective"
    assert numbers(clip) == list(clip.indices) == uniform_indices(clip.total, 4).tolist()
    assert len(seen) == parts
    return clip


@pytest.mark.parametrize("cls", [OpenCVExcerpt, PyAVDecoder])
@pytest.mark.parametrize("held", [0, 1 << 20])
def test_two_parts_of_a_video_are_decoded_at_once(clip, cls, held, monkeypatch):
    monkeypatch.setattr(opencv, "_BYTES_TO_HOLD", held)
    assert read_in(2, clip, cls, monkeypatch).notes == ()


def test_where_several_videos_are_read_none_is_divided(clip, monkeypatch):
    monkeypatch.setattr(threads, "_reading", [None])
    read_in(1, clip, OpenCVExcerpt, monkeypatch)


def test_one_long_group_is_not_divided(clip_folder, monkeypatch):
    clip = Recipe("undivided.mp4", frames=200, gop=1000).encode(clip_folder)
    read_in(1, clip, OpenCVExcerpt, monkeypatch)


@pytest.mark.parametrize("part", [0, 1])
def test_a_part_that_is_not_as_listed_ends_the_other_and_all_is_read_in_order(clip, part, monkeypatch):
    grabbed = [0, 0]
    honest_excerpt, honest_grab = OpenCVDecoder.excerpt, OpenCVExcerpt.grab

    def excerpt(self, index, excerpt, parts):
        pictures = honest_excerpt(self, index, excerpt, parts)
        pictures.part = int(excerpt.packets[0] > 0)
        return pictures

    def grab(self):
        grabbed[self.part] += 1
        if self.part == part:
            return False
        time.sleep(0.01)
        return honest_grab(self)

    monkeypatch.setattr(OpenCVDecoder, "excerpt", excerpt)
    monkeypatch.setattr(OpenCVExcerpt, "grab", grab)
    found = read(clip, 32)
    assert found.method == "sequential"
    assert any("do not hold the pictures" in note for note in found.notes)
    assert numbers(found) == list(found.indices) == uniform_indices(200, 32).tolist()
    assert grabbed[part] == 1
    assert grabbed[1 - part] < 40


def test_an_error_in_one_part_ends_the_other_and_is_raised(clip):
    prepared = []

    def fragile(picture):
        if threading.current_thread().name == "xclip-read" and read_number(TRANSFORM(picture), cropped=True) > 100:
            raise ZeroDivisionError
        time.sleep(0.02)
        prepared.append(1)
        return TRANSFORM(picture)

    before = threading.active_count()
    with pytest.raises(ZeroDivisionError):
        read_clip(clip, num_frames=32, transform=fragile)
    assert len(prepared) < 10
    assert threading.active_count() == before


def test_the_time_limit_holds_for_every_part(clip):

    def late(picture):
        time.sleep(0.05)
        return TRANSFORM(picture)

    started = time.perf_counter()
    with pytest.raises(VideoTimeoutError):
        read_clip(clip, num_frames=100, transform=late, time_limit=0.3)
    assert time.perf_counter() - started < 2


def test_waiting_for_pictures_of_several_parts_counts_once(clip):

    def late(picture):
        time.sleep(0.02)
        return TRANSFORM(picture)

    found = read_clip(clip, num_frames=32, transform=late)
    assert found.method == "selective"
    assert 320 <= found.prepare_ms < 600
    assert found.decode_ms > 0
