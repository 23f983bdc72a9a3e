"""The installed ONNX Runtime, and the reasons for which its providers do not load."""

from __future__ import annotations

import contextlib
import ctypes
import ctypes.util
import functools
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xclip_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import ModuleType

WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml")

PROVIDER_LIBRARY = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
}
DRIVER = "libcuda.so.1"
TENSORRT_LIBRARIES = ("libnvinfer", "libnvonnxparser")
NVIDIA_SMI_SECONDS = 20

# glibc's error for a shared library that is not found.
_MISSING = re.compile(r"^(?P<name>[^\s:]+\.so[.\d]*): cannot open shared object file")


class Gpu(NamedTuple):
    """A GPU as nvidia-smi describes it."""

    name: str
    driver: str
    memory: str


def disable_telemetry() -> None:
    """Turn ONNX Runtime's telemetry off, unless the environment sets it; call this before anything loads it.

    From 1.29 on it sends events to Microsoft, and keeps a device id and a database in the user's home.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def onnxruntime() -> ModuleType:
    """Import ONNX Runtime.

    Raises:
        MissingExtraError: ONNX Runtime is not installed, or its remains cannot be imported.
    """
    disable_telemetry()
    try:
        import onnxruntime as module  # noqa: PLC0415 - optional: the extra decides between CPU and GPU

        # Uninstalling one of two wheels that share a folder leaves an empty package that still imports.
        module.InferenceSession  # noqa: B018
    except (ImportError, AttributeError) as error:
        feature = "running a model"
        raise MissingExtraError(feature, "cpu") from error
    loaded: ModuleType = module
    return loaded


def onnxruntime_version() -> str:
    """Return the version of the installed ONNX Runtime."""
    return str(onnxruntime().__version__)


def cuda_version() -> str | None:
    """Return the CUDA version that the installed ONNX Runtime was built for; None without CUDA."""
    try:
        from onnxruntime.capi import build_and_package_info  # noqa: PLC0415 - absent from wheels for the CPU
    except ImportError:
        return None
    version = getattr(build_and_package_info, "cuda_version", None)
    return str(version) if version else None


def available_providers() -> tuple[str, ...]:
    """Return the execution providers that the installed ONNX Runtime was built with."""
    return tuple(onnxruntime().get_available_providers())


def installed_versions(wheels: Iterable[str]) -> dict[str, str]:
    """Return the versions of those wheels that are installed."""
    found = {}
    for name in wheels:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def preload_libraries() -> None:
    """Load the CUDA and cuDNN libraries that pip installed, once, before the first CUDA session."""
    preload = getattr(onnxruntime(), "preload_dlls", None)
    if preload is not None:
        # It prints the libraries that it does not find, and never raises; loading_error reports them.
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def loading_error(provider: str) -> str | None:
    """Return the dynamic loader's error for a provider's library, which names the first missing one; None if it loads.

    ONNX Runtime only logs it and falls back to the CPU.
    """
    if sys.platform != "linux" or provider not in PROVIDER_LIBRARY:
        return None
    folder = Path(str(onnxruntime().__file__)).parent / "capi"
    library = folder / PROVIDER_LIBRARY[provider]
    if not library.exists():
        return None
    try:
        ctypes.CDLL(str(folder / "libonnxruntime_providers_shared.so"), mode=ctypes.RTLD_GLOBAL)
        ctypes.CDLL(str(library))
    except OSError as error:
        return str(error)
    return None


def missing_library(error: str | None) -> str | None:
    """Return the name of the missing shared library in a loader's error; None in other errors."""
    missing = _MISSING.match(error or "")
    return missing["name"] if missing else None


def suggest_fix(error: str, provider: str) -> str:
    """Return what to do about a loader's error."""
    missing = missing_library(error)
    if missing == DRIVER:
        return "install the NVIDIA driver; in a container start it with --gpus all"
    if missing and missing.startswith(TENSORRT_LIBRARIES):
        return "install TensorRT (pip install tensorrt-cu13, or -cu12 for CUDA 12), or choose device cuda"
    if missing:
        built = cuda_version()
        version = f" for CUDA {built}" if built else ""
        return f"pip install 'onnxruntime-gpu[cuda,cudnn]', whose libraries are{version}"
    return f"reinstall the wheel that has {provider}"


@functools.cache
def gpus() -> tuple[Gpu, ...] | None:
    """Return the GPUs of this machine; None where nvidia-smi is missing or fails."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return None
    query = [command, "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, check=True, timeout=NVIDIA_SMI_SECONDS)  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.split(", ") for line in done.stdout.splitlines())
    return tuple(Gpu(*row) for row in rows if len(row) == 3)
