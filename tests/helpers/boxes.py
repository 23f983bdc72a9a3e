"""Small machines for the tests: memory, CPU, root file system and clock of a process, where this one may set them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

CGROUPS = Path("/sys/fs/cgroup")


@contextmanager
def memory_cgroup(limit):
    """A control group whose processes share `limit` bytes, and the words of a command that joins it."""
    old = CGROUPS / "memory"
    group = (old if old.is_dir() else CGROUPS) / f"xclip-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")).write_text(str(limit))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"cannot make a control group with a memory limit here: {error.strerror or error}")
    try:
        yield ["sh", "-c", f'echo $$ > {group}/cgroup.procs && exec "$@"', "sh"]
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            with suppress(ProcessLookupError):
                os.kill(int(pid), 9)
        _remove(group)


def _remove(group):
    from helpers.servers import eventually

    def gone():
        with suppress(OSError):
            group.rmdir()
        return not group.exists()

    eventually(gone)


def read_only_root(temporary):
    """The words of a command that can write nowhere but in `temporary`, 64 MiB in memory."""
    mounts = f"mount -o remount,bind,ro / && mount -t tmpfs -o size=64m tmpfs {temporary}"
    unshare = ["unshare", "--mount", "--map-root-user", "sh", "-ec"]
    tried = subprocess.run([*unshare, f"{mounts} && ! touch /usr/x"], check=False, capture_output=True, text=True)
    if tried.returncode:
        pytest.skip(f"cannot make the root file system read-only here: {tried.stderr.strip()}")
    return [*unshare, f'{mounts}; export TMPDIR={temporary}; exec "$@"', "sh"]


def one_cpu():
    """The words of a command that has one CPU."""
    if sys.platform != "linux":
        pytest.skip("only Linux binds processes to CPUs by a command")
    return ["taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))]


def clock(file):
    """Variables of a process whose wall clock, and no other, is off by what `file` says ("+3600"): libfaketime."""
    library = next(Path("/usr").glob("lib/*/faketime/libfaketime.so.1"), None)
    if library is None or shutil.which("faketime") is None:
        pytest.skip("needs libfaketime")
    return {
        "LD_PRELOAD": str(library),
        "FAKETIME_TIMESTAMP_FILE": str(file),
        "FAKETIME_CACHE_DURATION": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
