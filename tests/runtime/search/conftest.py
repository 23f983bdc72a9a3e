"""Clips of known content, rendered once, and an index of them."""

from __future__ import annotations

import numpy as np
import pytest

from motion_demo.encode import write_video
from motion_demo.labels import Label
from motion_demo.scenes import EVALUATION_SEEDS, frame_times, render, sample_scene
from xclip_runtime import XClip
from xclip_runtime.demo import DEMO_BUNDLE
from xclip_runtime.search import VideoIndex

LABELS = (
    Label("red", "left"),
    Label("blue", "growing"),
    Label("green", "still"),
    Label("yellow", "down"),
    Label("cyan", "bouncing"),
    Label("purple", "right"),
)


def scene(number, label):
    """32 frames, uint8 RGB (32, 224, 256, 3)."""
    return render(sample_scene(EVALUATION_SEEDS.start + number, label), frame_times(32), size=(224, 256))


@pytest.fixture(scope="session")
def model():
    return XClip(DEMO_BUNDLE, device="cpu")


@pytest.fixture(scope="session")
def clips(tmp_path_factory):
    """Six clips of two seconds, named by what they show."""
    folder = tmp_path_factory.mktemp("clips")
    files = {}
    for number, label in enumerate(LABELS):
        files[label.text] = folder / f"{label.colour}-{label.motion}.mp4"
        write_video(files[label.text], scene(number, label), 16)
    return files


@pytest.fixture(scope="session")
def film(tmp_path_factory):
    """Six seconds: three scenes, one after the other."""
    file = tmp_path_factory.mktemp("film") / "film.mp4"
    write_video(file, np.concatenate([scene(10 + i, label) for i, label in enumerate(LABELS[:3])]), 16)
    return file


@pytest.fixture(scope="session")
def index(tmp_path_factory, model, clips):
    """All clips, features stored in fp32. Only to be read."""
    with VideoIndex.create(tmp_path_factory.mktemp("index"), model, features="fp32") as made:
        assert [added.outcome for added in made.add(clips.values())] == ["added"] * len(clips)
        yield made
