"""Many videos are read by processes, with the frames, errors and options of one that is read here."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from xclip_runtime.demo import DEMO_VIDEO
from xclip_runtime.errors import DecoderCrashedError, VideoError
from xclip_runtime.video import FrameTransform, Views
from xclip_runtime.video.load import Reading, read_video
from xclip_runtime.video.processes import ENOUGH_THREADS, VideoReaders, read_ahead
from xclip_runtime.video.threads import ThreadPolicy

TRANSFORM = FrameTransform("hf", 112)
READING = Reading(Views(2, 3), start=0.5, end=2.5, square_pixels=True)
THREADS = ENOUGH_THREADS + 1


def children():
    """Count the processes that read videos for this one; each is a child of the thread that started it."""
    found = [pid for thread in Path("/proc/self/task").glob("*/children") for pid in thread.read_text().split()]
    names = [Path(f"/proc/{pid}/cmdline") for pid in found]
    return sum(b"video.worker" in name.read_bytes() for name in names if name.exists())


def eventually(true):
    deadline = time.monotonic() + 20
    while not true() and time.monotonic() < deadline:
        time.sleep(0.01)
    return true()


@pytest.fixture
def readers():
    """Readers whose threads have all read once."""
    with VideoReaders(THREADS) as opened:
        for _ in range(THREADS):
            opened(np.zeros((4, 8, 8, 3), np.uint8), 4, TRANSFORM, Reading())
            opened(DEMO_VIDEO, 2, TRANSFORM, Reading(end=0.2))
        yield opened


def facts(clip):
    return replace(clip, frames=None, decode_ms=0.0, prepare_ms=0.0)


def test_a_process_reads_what_this_one_would_read(readers):
    for reading in (Reading(), READING):
        here = read_video(str(DEMO_VIDEO), 8, TRANSFORM, reading)
        there = readers(DEMO_VIDEO, 8, TRANSFORM, reading)

        np.testing.assert_array_equal(there.frames, here.frames)
        assert facts(there) == facts(here)
    assert children() == 1


@pytest.mark.parametrize("threads", [1, ENOUGH_THREADS])
def test_few_threads_read_by_themselves(threads):
    with VideoReaders(threads) as readers:
        for _ in range(2 * threads):
            readers(DEMO_VIDEO, 2, TRANSFORM, Reading(end=0.2))
        assert children() == 0


def test_a_short_list_starts_no_process():
    with VideoReaders(THREADS) as readers:
        for _ in range(THREADS):
            readers(DEMO_VIDEO, 2, TRANSFORM, Reading(end=0.2))
        assert children() == 0


@pytest.mark.parametrize(
    ("video", "reading"),
    [
        (np.zeros((4, 64, 64, 3), np.uint8), Reading()),
        (DEMO_VIDEO.read_bytes(), Reading()),
        (DEMO_VIDEO, Reading(policy=ThreadPolicy(1))),
    ],
    ids=["frames", "bytes", "own policy"],
)
def test_what_no_message_can_say_is_read_here(readers, video, reading):
    assert readers(video, 4, TRANSFORM, reading).frames.shape[-4:] == (4, 112, 112, 3)
    assert children() == 0


def test_an_error_is_the_one_of_a_reading_here(readers, tmp_path):
    broken = tmp_path / "b\udcff\nroken.mp4"
    broken.write_bytes(DEMO_VIDEO.read_bytes()[:1000])
    for video, reading in ((broken, Reading()), (tmp_path / "missing.mp4", Reading()), (DEMO_VIDEO, Reading(start=99))):
        with pytest.raises(VideoError) as here:
            read_video(video, 8, TRANSFORM, reading)
        with pytest.raises(VideoError) as there:
            readers(video, 8, TRANSFORM, reading)

        assert (type(there.value), str(there.value)) == (type(here.value), str(here.value))


def test_a_decoder_that_crashes_costs_one_video(readers):
    readers(DEMO_VIDEO, 2, TRANSFORM, Reading())
    [process] = readers._processes
    os.kill(process._process.pid, signal.SIGKILL)

    with pytest.raises(DecoderCrashedError, match=r"motion-demo\.mp4: convert"):
        readers(DEMO_VIDEO, 2, TRANSFORM, Reading())
    assert readers(DEMO_VIDEO, 2, TRANSFORM, Reading()).total == 75


def test_ctrl_c_in_a_terminal_does_not_reach_a_process(readers):
    """It would end in a traceback while Python starts."""
    readers(DEMO_VIDEO, 2, TRANSFORM, Reading())
    [process] = readers._processes

    assert os.getsid(process._process.pid) == process._process.pid


def test_threads_read_where_no_process_starts(readers, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")

    assert readers(DEMO_VIDEO, 2, TRANSFORM, Reading()).total == 75
    assert children() == 0


def test_a_frozen_application_never_starts_itself_again(monkeypatch):
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    with VideoReaders(THREADS) as readers:
        for _ in range(2 * THREADS):
            readers(DEMO_VIDEO, 2, TRANSFORM, Reading(end=0.2))
        assert children() == 0


def test_many_videos_come_in_their_order_and_no_process_remains(tmp_path):
    names = [str(shutil.copy(DEMO_VIDEO, tmp_path / f"{number}.mp4")) for number in range(3 * THREADS)]

    def read(name, read_video):
        return read_video(name, 2, TRANSFORM, Reading(end=0.2))

    most, videos = 0, []
    for video in read_ahead(names, read, lambda pairs: [name for name, _ in pairs], workers=THREADS):
        most = max(most, children())
        videos.append(video)

    assert videos == names
    assert most > 0
    assert children() == 0


def test_closing_early_ends_the_processes():
    videos = [DEMO_VIDEO] * 1000
    results = read_ahead(videos, lambda video, read: read(video, 2, TRANSFORM, Reading()), list, workers=THREADS)
    while children() == 0:
        next(results)
    results.close()

    # One that was just starting ends when it has.
    assert eventually(lambda: children() == 0)


def test_the_processes_end_with_this_one(tmp_path):
    code = f"""
import os, sys
from xclip_runtime.video.load import Reading
from xclip_runtime.video import FrameTransform
from xclip_runtime.video.processes import VideoReaders
readers = VideoReaders({THREADS})
for _ in range({THREADS} + 1):
    readers({str(DEMO_VIDEO)!r}, 2, FrameTransform("hf", 32), Reading())
print(next(iter(readers._processes))._process.pid, flush=True)
os._exit(0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert eventually(lambda: not Path(f"/proc/{int(done.stdout)}/cmdline").exists())


@pytest.mark.parametrize("workers", [0, -1])
def test_no_worker_is_an_error(workers):
    with pytest.raises(ValueError, match="a whole number of at least 1"):
        read_ahead([], lambda *_: None, list, workers=workers)
