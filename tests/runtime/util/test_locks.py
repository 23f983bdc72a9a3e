"""One process at a time writes an output; the lock dies with its process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from xclip_runtime.errors import OutputLockedError
from xclip_runtime.util.locks import locked

HOLD = """
import sys, time
from xclip_runtime.util.locks import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock of ``out``."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, tmp_path / "out"], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.communicate()


def test_the_second_is_refused_with_process_and_host_of_the_first(tmp_path, holder):
    told = re.escape(f"{tmp_path / 'out'} is being written by process {holder.pid} on {socket.gethostname()}: wait")

    with pytest.raises(OutputLockedError, match=told), locked(tmp_path / "out"):
        pass


def test_a_killed_process_holds_nothing(tmp_path, holder):
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / ".out.lock").exists()

    with locked(tmp_path / "out"):
        assert (tmp_path / ".out.lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("inside", [False, True])
def test_one_process_does_not_hold_a_lock_twice_but_again(tmp_path, inside):
    for _ in range(2):
        with locked(tmp_path, inside=inside), pytest.raises(OutputLockedError), locked(tmp_path, inside=inside):
            pass
    assert not list(tmp_path.iterdir())


def test_names_of_one_file_are_one_lock(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with locked("out"), pytest.raises(OutputLockedError), locked(tmp_path / "x/../out"):
        pass


def test_the_current_folder_has_a_lock(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with locked("."):
        assert (tmp_path / ".here.lock").exists()


@pytest.mark.parametrize("output", [None, "/no/such/folder/out", "/proc/out"])
def test_without_an_output_or_a_place_for_it_there_is_no_lock(output):
    with locked(output), locked(output):
        pass
