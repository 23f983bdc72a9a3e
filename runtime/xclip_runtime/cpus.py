"""The CPUs that this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def available_cpus() -> int:
    """CPUs that this process may use: the smaller of its affinity mask and its cgroup quota, at least 1.

    ONNX Runtime and OpenCV themselves look at neither the quota of a container nor at a part of a CPU.
    """
    affinity = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    quota = _cgroup_cpus(Path("/sys/fs/cgroup"))
    return max(1, min(affinity, math.ceil(quota)) if quota is not None else affinity)


def _cgroup_cpus(root: Path) -> float | None:
    """The container's CPU quota in CPUs, from cgroup v2 or v1; None where there is none."""
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
