"""The installed ONNX Runtime, and why one of its providers does not load. Nothing outside this package imports it."""

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
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xclip_runtime.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

WHEELS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")

PROVIDER_LIBRARY = {
    "CUDAExecutionProvider": "libonnxruntime_providers_cuda.so",
    "TensorrtExecutionProvider": "libonnxruntime_providers_tensorrt.so",
    "OpenVINOExecutionProvider": "libonnxruntime_providers_openvino.so",
}
DRIVER = "libcuda.so.1"
NVIDIA_SMI_SECONDS = 20

# Of an ELF file: the type of its dynamic section, and the tag of a needed library in it.
_DYNAMIC, _NEEDED = 6, 1

# A shared library that the loader did not find, as glibc says it.
_MISSING = re.compile(r"^(?P<name>[^\s:]+\.so[.\d]*): cannot open shared object file")


class Gpu(NamedTuple):
    """A GPU as nvidia-smi tells of it."""

    name: str
    driver: str
    memory: str


def onnxruntime() -> ModuleType:
    """The module.

    Raises:
        MissingExtraError: ONNX Runtime is not installed, or what is left of it cannot be imported.
    """
    # From 1.29 on it reports to its maker what it runs, unless told not to before it starts.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        import onnxruntime as module  # noqa: PLC0415 - optional: the extra decides between CPU and GPU

        # What a wheel leaves behind when another one that shares its folder is uninstalled imports, and is empty.
        module.InferenceSession  # noqa: B018
    except (ImportError, AttributeError) as error:
        feature = "running a model"
        raise MissingExtraError(feature, "cpu") from error
    loaded: ModuleType = module
    return loaded


def onnxruntime_version() -> str:
    """Version of the installed ONNX Runtime."""
    return str(onnxruntime().__version__)


def cuda_version() -> str | None:
    """The CUDA version that the installed ONNX Runtime was built for; None for one without CUDA."""
    try:
        from onnxruntime.capi import build_and_package_info  # noqa: PLC0415
    except ImportError:
        return None
    version = getattr(build_and_package_info, "cuda_version", None)
    return str(version) if version else None


def available_providers() -> tuple[str, ...]:
    """The execution providers that the installed ONNX Runtime was built with."""
    return tuple(onnxruntime().get_available_providers())


def installed_wheels() -> dict[str, str]:
    """Versions of the installed ONNX Runtime wheels, of which there should be one."""
    found = {}
    for name in WHEELS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


@functools.cache
def preload_libraries() -> None:
    """Let ONNX Runtime load the CUDA and cuDNN libraries that pip installed; once, before the first CUDA session."""
    preload = getattr(onnxruntime(), "preload_dlls", None)
    if preload is not None:
        # It prints what it does not find, and never raises: loading_error says it better.
        with contextlib.redirect_stdout(io.StringIO()):
            preload()


def loading_error(provider: str) -> str | None:
    """The system loader's own words for why a provider's library does not load; None where it does.

    ONNX Runtime only logs them, and goes on with the CPU.
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


def missing_libraries(provider: str) -> list[str]:
    """Every shared library that a provider needs and the loader does not find, the driver included."""
    folder = Path(str(onnxruntime().__file__)).parent / "capi"
    library = folder / PROVIDER_LIBRARY.get(provider, "")
    return [name for name in needed_libraries(library) if not _loads(name)] if library.is_file() else []


def needed_libraries(library: Path) -> list[str]:
    """The NVIDIA libraries that a shared library (ELF, 64 bit, little-endian) names as needed."""
    data = library.read_bytes()
    if data[:6] != b"\x7fELF\x02\x01":
        return []
    (offset,) = struct.unpack_from("<Q", data, 0x28)
    size, count = struct.unpack_from("<HH", data, 0x3A)
    # type, offset, size and link of each section
    sections = [struct.unpack_from("<4xI16xQQI", data, offset + i * size) for i in range(count)]
    needed = []
    for kind, start, length, link in sections:
        if kind != _DYNAMIC:
            continue
        for entry in range(start, start + length, 16):
            tag, value = struct.unpack_from("<QQ", data, entry)
            if tag == _NEEDED:
                needed.append(_string(data, sections[link][1] + value))
    return sorted(name for name in needed if name.startswith(("libcu", "libnv")))


def _string(data: bytes, start: int) -> str:
    return data[start : data.index(b"\0", start)].decode()


def mend(error: str, provider: str) -> str:
    """What to do about a loader's error."""
    missing = _MISSING.match(error)
    if missing and missing["name"] == DRIVER:
        return "install the NVIDIA driver; in a container start it with --gpus all"
    if missing and missing["name"].startswith(("libnvinfer", "libnvonnxparser")):
        return "install TensorRT (pip install tensorrt-cu13, or -cu12 for CUDA 12), or choose device cuda"
    if missing and provider != "OpenVINOExecutionProvider":
        built = cuda_version()
        version = f" for CUDA {built}" if built else ""
        return f"pip install 'onnxruntime-gpu[cuda,cudnn]', whose libraries are{version}"
    return f"reinstall the wheel that has {provider}"


@functools.cache
def gpus() -> tuple[Gpu, ...] | None:
    """The GPUs of this machine; None where nvidia-smi is missing or fails."""
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


def _loads(name: str) -> bool:
    try:
        ctypes.CDLL(name)
    except OSError:
        return False
    return True
