"""Nothing is written to the user's home but what docs/installation.md says: no telemetry of ONNX Runtime, no cache."""

from __future__ import annotations

import csv
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.checkpoints import write_seeded_checkpoint
from helpers.servers import process
from xclip_runtime.cli import COMMANDS
from xclip_runtime.demo import DEMO_VIDEO

MAIN = [sys.executable, "-B", "-c", "from xclip_runtime.cli import main; main()"]
PLOTS = {".cache", ".cache/matplotlib", ".config", ".config/matplotlib"}
"""Files that Matplotlib keeps for the next plot."""

TUNINGS = {".cache", ".cache/xclip-onnx", ".cache/xclip-onnx/tuning"}
"""Folders of the choices of `tune`, which are what it is run for."""

BENCH = "bench --scenario SingleStream --duration 0.1 --count 2 --cold-starts 1 --no-sweeps --output bench"
# In the order in which they can run; a command that takes a bundle takes motion-demo.
CALLS = [
    "demo",
    "classify ride.mp4",
    "classify ride.mp4 --labels red,orange",
    "score ride.mp4 red orange",
    "stream ride.mp4 --window 2",
    "eval-stream ride.mp4 --window 2 --max-windows 2",
    "embed ride.mp4 -o videos",
    "index add ride.mp4 --index films",
    "index search orange --index films --contact-sheet found.png",
    "index eval captions.csv",
    "labels encode labels.txt -o labels.json",
    "eval classes --output evaluated",
    BENCH,
    "info",
    "verify",
    "doctor",
    "export checkpoint -o bundle --labels-file labels.txt",
    "export-triton --output models",
    "push motion-demo owner/name --dry-run",
    "pack motion-demo -o small",
    "tune motion-demo --budget 30",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two videos as files and in classes, their captions and labels, and a checkpoint that is exported in seconds."""
    folder = tmp_path_factory.mktemp("work")
    shutil.copy(DEMO_VIDEO, folder / "ride.mp4")
    for name in ("an orange shape circling", "a red shape growing"):
        (folder / "classes" / name).mkdir(parents=True)
        shutil.copy(DEMO_VIDEO, folder / "classes" / name / "video.mp4")
    with (folder / "captions.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["video", "caption"], ["ride.mp4", "orange"], ["ride.mp4", "red"]])
    (folder / "labels.txt").write_text("red\norange\n")
    write_seeded_checkpoint(
        folder / "checkpoint", num_frames=2, patch_size=32, image_size=64, vision_layers=1, text_layers=1
    )
    return folder


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty home, and nothing else in the environment: ONNX Runtime is silent where CI's variables are set."""
    for name in set(os.environ) - {"PATH", "PYTHONPATH"}:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XCLIP_ONNX_BUNDLE", "motion-demo")
    return tmp_path


def written(home, command=""):
    """Paths in the home that the documentation of the command does not name."""
    named = PLOTS if command in ("bench", "eval") else TUNINGS if command == "tune" else set()
    found = {str(path.relative_to(home)) for path in home.rglob("*")}
    return {path for path in found - named if str(Path(path).parent) not in named - {".cache", ".config"}}


def test_every_command_is_here():
    assert {call.split()[0] for call in CALLS} | {"serve"} == set(COMMANDS)


@pytest.mark.parametrize("call", CALLS, ids=lambda call: " ".join(call.split()[:3]))
def test_a_command_writes_nothing_to_the_home(call, folder, home):
    done = subprocess.run([*MAIN, *call.split()], cwd=folder, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert written(home, call.split()[0]) == set()


def test_a_server_writes_nothing_to_the_home(home):
    with process():
        pass

    assert written(home) == set()


def test_the_export_as_a_library_turns_telemetry_off_before_optimum_loads_onnx_runtime(home):
    subprocess.run([sys.executable, "-B", "-c", "import xclip_export.optimum_config, onnxruntime"], check=True)

    assert written(home) == set()
