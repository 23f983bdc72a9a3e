"""Memory of the machine, of its container and of this process."""

from __future__ import annotations

from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def memory_mb() -> int | None:
    """Return the memory of the machine in MB of 10**6 bytes; None if unknown."""
    total = _kilobytes("/proc/meminfo", "MemTotal")
    return None if total is None else round(total * 1024 / 1e6)


def memory_limit(root: Path = CGROUP) -> int | None:
    """Read the container's memory limit in bytes, from cgroup v2 or v1; None if it has none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (root / name).read_text().strip()
        except OSError:
            continue
        # v1 has a number near 2^63 for no limit.
        return int(limit) if limit != "max" and int(limit) < 1 << 60 else None
    return None


def available_memory() -> int | None:
    """Return the bytes that new processes may take: what the machine has left, at most the limit; None if unknown."""
    left, limit = _kilobytes("/proc/meminfo", "MemAvailable"), memory_limit()
    known = [size for size in (None if left is None else left * 1024, limit) if size is not None]
    return min(known, default=None)


def peak_rss_mb() -> float | None:
    """Return the peak resident set size of this process, in MB of 10**6 bytes; None if unknown."""
    peak = _kilobytes("/proc/self/status", "VmHWM")
    return None if peak is None else peak * 1024 / 1e6


def _kilobytes(path: str, field: str) -> int | None:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{field}:")), None)
