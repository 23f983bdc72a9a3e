"""Name, number and instruction sets of the CPUs that this process may use."""

from __future__ import annotations

import math
import os
import platform
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.util.memory import available_memory

if TYPE_CHECKING:
    from collections.abc import Iterator

INSTRUCTION_SETS = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "i8mm", "bf16", "sve"),
)
"""Instruction sets that select the matrix kernels, on x86 and on Arm."""
BYTES_OF_A_WORKER = 512 << 20
"""Memory for each video that is read at once: frames of 4K, a process, and clips that wait for the model."""
FEW_WORKERS = 4
"""Videos to read at once on machines whose memory is unknown."""
_INT8_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})


def available_cpus() -> int:
    """Count the CPUs that this process may use: the smaller of its affinity mask and its cgroup quota, at least 1.

    ONNX Runtime and OpenCV ignore the quota of a container.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _cgroup_cpus(Path("/sys/fs/cgroup"))
    return max(1, min(affinity, math.ceil(quota)) if quota is not None else affinity)


def default_workers() -> int:
    """Return the number of videos to read at once: one per usable CPU, as far as memory allows."""
    memory = available_memory()
    return min(available_cpus(), max(memory // BYTES_OF_A_WORKER, 1) if memory is not None else FEW_WORKERS)


def cpu_name() -> str:
    """Name the CPU, with family and model if known, since virtual machines hide the generation in the name."""
    pairs = (line.partition(":") for line in _cpuinfo().split("\n\n", 1)[0].splitlines())
    fields = {name.strip(): value.strip() for name, _, value in pairs}
    name = fields.get("model name") or platform.processor() or platform.machine()
    if "cpu family" not in fields:
        return name
    return f"{name} (family {fields['cpu family']}, model {fields['model']})"


def instruction_sets() -> tuple[str, ...]:
    """List the `INSTRUCTION_SETS` of the CPU; empty if the system does not tell."""
    lines = _cpuinfo().splitlines()
    found = next((line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))), [])
    return tuple(name for name in INSTRUCTION_SETS if name in found)


def int8_is_fast() -> bool | None:
    """Return True if the CPU has int8 dot products (VNNI, Arm's dotprod), None if that is unknown."""
    found = instruction_sets()
    return bool(_INT8_DOT_PRODUCTS.intersection(found)) if found else None


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _cgroup_cpus(root: Path) -> float | None:
    """Read the container's quota in CPUs, from cgroup v2 or v1; None if it has none."""
    try:
        quota, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)


_reading: list[None] = []
"""An item for each video that is being read, in any thread."""


@contextmanager
def reading() -> Iterator[None]:
    """Give a video its share of the CPUs while it is read."""
    _reading.append(None)
    try:
        yield
    finally:
        _reading.pop()


def readers() -> int:
    """Count the videos that are being read."""
    return len(_reading)


def reads_alone() -> bool:
    """Return True if at most one video is being read, so that CPUs may be free beside its decoder."""
    return readers() < 2
