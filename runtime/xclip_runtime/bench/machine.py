"""Record of the machine and the software of a benchmark."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from xclip_runtime._version import __version__
from xclip_runtime.inference.installation import onnxruntime_version
from xclip_runtime.inference.plugins import available_providers
from xclip_runtime.util.cpus import available_cpus, cpu_name, instruction_sets
from xclip_runtime.util.memory import memory_mb

VERSIONS = ("numpy", "opencv-python-headless", "opencv-python", "mlcommons-loadgen", "av")


def machine() -> dict[str, Any]:
    """Describe CPU, memory and container limits; unknown ones are None."""
    return {
        "cpu": cpu_name(),
        "cpu_flags": sorted(instruction_sets()),
        "cpus": os.cpu_count(),
        "cpus_usable": available_cpus(),
        "cgroup_cpu_max": _text("/sys/fs/cgroup/cpu.max"),
        "cgroup_memory_max": _text("/sys/fs/cgroup/memory.max"),
        "memory_mb": memory_mb(),
        "governor": _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "system": platform.platform(),
    }


def software() -> dict[str, Any]:
    """List the versions that affect speed, and the execution providers of ONNX Runtime."""
    versions = {"python": platform.python_version(), "xclip-onnx": __version__, "onnxruntime": onnxruntime_version()}
    for name in VERSIONS:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"versions": versions, "providers": list(available_providers())}


def busy_seconds() -> float:
    """Return the CPU seconds of all processes since boot; 0 if unknown."""
    text = _text("/proc/stat")
    if text is None:
        return 0.0
    user, nice, system, _, _, irq, softirq, steal = map(int, text.split("\n", 1)[0].split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError:
        return None
