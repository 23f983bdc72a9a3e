"""A camera at /dev/video0, as FFmpeg reads one through V4L2; `video_device.c` is the camera."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from xclip_runtime.demo import DEMO_BUNDLE

COMPILER = shutil.which("cc")
DEVICE = Path(__file__).parents[2] / "helpers/video_device.c"
FPS = 30
FRAMES = """
from xclip_runtime.streaming.sources import Backoff, open_source
for frame in open_source("0", backoff=Backoff(first=0.05, longest=0.1, reconnect_timeout=1.0)):
    print(frame.time, frame.to_rgb().mean(), frame.after_gap)
"""
COMMAND = "from xclip_runtime.cli import main; main()"

pytestmark = pytest.mark.skipif(
    COMPILER is None or not Path("/usr/include/linux/videodev2.h").exists(),
    reason="the camera is built with a C compiler and the headers of Linux",
)


@pytest.fixture(scope="module")
def device(tmp_path_factory):
    library = tmp_path_factory.mktemp("camera") / "camera.so"
    subprocess.run([COMPILER, "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, DEVICE, "-ldl"], check=True)
    return library


@pytest.fixture
def with_camera(device):
    """Run Python with the camera, which sends so many frames each time that it is plugged in."""

    def run(*arguments, plan):
        camera = {"LD_PRELOAD": str(device), "CAMERA_PLAN": plan, "CAMERA_AWAY": "300"}
        command = [sys.executable, "-c", *arguments]
        return subprocess.run(command, env=os.environ | camera, capture_output=True, text=True, timeout=60, check=False)

    return run


def test_the_frames_of_a_camera_come_with_its_own_times_and_go_on_when_it_is_plugged_in_again(with_camera):
    done = with_camera(FRAMES, plan="45,30")

    times, brightness, after_gap = zip(*(line.split() for line in done.stdout.splitlines()), strict=True)
    times = np.array(times, float)
    numbers = [*range(45), *range(30)]
    assert len(times) == len(numbers)
    # Luma from 16 to 235 becomes grey from 0 to 255; FFmpeg's quick conversion is up to 2.3 darker.
    assert np.abs(np.array(brightness, float) - np.clip((np.array(numbers) - 16) * 255 / 219, 0, 255)).max() < 2.5
    assert times[0] == 0
    assert times[[44, 74]] - times[[0, 45]] == pytest.approx([44 / FPS, 29 / FPS], abs=0.1)
    assert 0.3 < times[45] - times[44] < 1
    assert [number for number, gap in enumerate(after_gap) if gap == "True"] == [45]
    assert "camera 0 has sent nothing for 1 s: check it" in done.stderr


def test_a_camera_is_streamed_by_the_command(with_camera):
    done = with_camera(
        COMMAND,
        "stream",
        "-b",
        str(DEMO_BUNDLE),
        "0",
        "--json",
        "--window",
        "1",
        "--hop",
        "0.5",
        "--give-up",
        "0.2",
        plan="80",
    )

    windows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [window["start"] for window in windows] == pytest.approx([0, 0.5, 1, 1.5], abs=0.05)
    assert [window["end"] for window in windows] == pytest.approx([1, 1.5, 2, 2.5], abs=0.05)
    assert done.stderr.splitlines()[-1].startswith("xclip-onnx: camera 0 has sent nothing")
    assert done.returncode == 1


def test_a_camera_that_is_not_there_is_one_clear_line(with_camera):
    done = with_camera(COMMAND, "stream", "-b", str(DEMO_BUNDLE), "7", plan="")

    assert done.stdout == ""
    assert done.stderr.splitlines() == ["xclip-onnx: camera 7 cannot be opened: check that it is there and sends video"]
    assert done.returncode == 2
