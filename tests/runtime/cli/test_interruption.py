"""A command that is stopped from outside removes its temporary files, says so in a line, and ends at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from helpers.servers import eventually
from xclip_runtime.cli import interruption
from xclip_runtime.demo import DEMO_VIDEO

MAIN = [sys.executable, "-c", "from xclip_runtime.cli import main; main()"]
BENCH = ["bench", "--scenario", "SingleStream", "--duration", "1", "--count", "2", "--no-sweeps", "--cold-starts", "0"]
RETRIEVAL = ["index", "eval", "captions.csv", "--bundle", "motion-demo"]
CASES = [
    (["tune", "motion-demo"], signal.SIGTERM),
    (["tune", "motion-demo"], signal.SIGHUP),
    (["tune", "motion-demo"], signal.SIGINT),
    (BENCH, signal.SIGINT),
    (RETRIEVAL, signal.SIGINT),
    (RETRIEVAL, signal.SIGTERM),
]


@pytest.fixture
def captions(tmp_path):
    videos = [tmp_path / f"{number}.mp4" for number in range(200)]
    for video in videos:
        video.symlink_to(DEMO_VIDEO)
    lines = ["video,caption", *(f"{video.name},a red circle" for video in videos)]
    (tmp_path / "captions.csv").write_text("\n".join(lines), "utf-8")


@pytest.mark.usefixtures("captions")
@pytest.mark.parametrize(
    ("arguments", "number"), CASES, ids=lambda case: case.name if isinstance(case, signal.Signals) else case[0]
)
def test_a_stopped_command_leaves_no_temporary_files(tmp_path, arguments, number):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "XCLIP_ONNX_CACHE": str(tmp_path / "cache")}
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE}
    with subprocess.Popen([*MAIN, *arguments], env=environment, cwd=tmp_path, text=True, **pipes) as command:
        eventually(lambda: any(temporary.iterdir()))
        command.send_signal(number)
        errors = command.communicate(timeout=60)[1]

    assert list(temporary.iterdir()) == []
    assert command.returncode == 128 + number
    assert errors.splitlines()[-1].startswith("xclip-onnx: interrupted")
    assert "Traceback" not in errors


@pytest.fixture
def handlers():
    held = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    yield held
    for number, handler in held.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_nohup_ignores_stays_ignored():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    interruption.raise_stop_signals()

    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    with pytest.raises(interruption.StopSignal):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
