"""Diagnose this machine: each check tells what it found, and a failed one how to fix it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DATA, DEMO_BUNDLE
from xclip_runtime.errors import XClipError
from xclip_runtime.inference.installation import (
    TENSORRT_LIBRARIES,
    available_providers,
    cuda_version,
    gpus,
    installed_wheels,
    loading_error,
    missing_library,
    onnxruntime_version,
    preload_libraries,
    suggest_fix,
)
from xclip_runtime.inference.providers import DEVICES, PROVIDER_OF, SessionOptions
from xclip_runtime.inference.session import Session
from xclip_runtime.util.cpus import available_cpus, instruction_sets, int8_is_fast

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xclip_runtime.inference.providers import Device

OPENCV_WHEELS = (
    "opencv-python",
    "opencv-python-headless",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
OLDEST_PYTHON = (3, 10)
DECODING_SAMPLES = DATA / "decoding"
# Red and green above blue and grey.
_CORNERS = [[220, 40, 40], [40, 200, 40], [40, 40, 220], [128, 128, 128]]
_COLOUR_TOLERANCE = 24


@dataclass(frozen=True)
class Check:
    """Result of one check."""

    name: str
    ok: bool
    detail: str
    fix: str | None = None
    """Remedy; None if the check passed."""


def diagnose(bundle: str | os.PathLike[str] = DEMO_BUNDLE) -> Iterator[Check]:
    """Run every check; an error in a check is a failed check, not an exception.

    Args:
        bundle: Bundle to test.
    """
    checks: list[tuple[str, Callable[[], Check]]] = [
        ("python", check_python),
        ("onnxruntime", check_onnxruntime),
        *_cuda_checks(),
        *((f"device {device}", lambda device=device: check_device(device)) for device in _built_in_devices()),
        ("cpu", check_cpu),
        ("threads", check_threads),
        ("opencv", check_opencv),
        ("pyav", check_pyav),
        ("decoding", check_decoding),
        ("bundle", lambda: check_bundle(bundle)),
        ("self-test", lambda: check_self_test(bundle)),
    ]
    for name, check in checks:
        try:
            yield check()
        except XClipError as error:
            yield Check(name, ok=False, detail=str(error), fix=str(error).rpartition(": ")[2])


def check_python() -> Check:
    """Check the version of the interpreter."""
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check("python", sys.version_info >= OLDEST_PYTHON, detail, None)


def check_onnxruntime() -> Check:
    """Check that exactly one ONNX Runtime wheel is installed, since two overwrite each other's files."""
    found = installed_wheels()
    detail = ", ".join(f"{name} {version}" for name, version in found.items()) or "not installed"
    if len(found) == 1:
        return Check("onnxruntime", ok=True, detail=f"{detail}, loaded {onnxruntime_version()}")
    if not found:
        return Check("onnxruntime", ok=False, detail=detail, fix="pip install 'xclip-onnx[cpu]' or 'xclip-onnx[gpu]'")
    fix = f"pip uninstall -y {' '.join(found)}, then pip install 'xclip-onnx[cpu]' or 'xclip-onnx[gpu]'"
    return Check("onnxruntime", ok=False, detail=f"{detail}: they overwrite each other", fix=fix)


def check_device(device: Device) -> Check:
    """Check that a built-in execution provider runs a graph here.

    The GPU wheel brings TensorRT's provider but not TensorRT, without which only device tensorrt is unavailable.
    """
    if device == "tensorrt":
        preload_libraries()
        missing = missing_library(loading_error(PROVIDER_OF[device]))
        if missing is not None and missing.startswith(TENSORRT_LIBRARIES):
            return Check("device tensorrt", ok=True, detail="TensorRT is not installed; only device tensorrt needs it")
    graph = DEMO_BUNDLE / "onnx/prompt_model.onnx"
    session = Session(graph, SessionOptions(device))
    return Check(f"device {device}", ok=True, detail=session.provider)


def check_cuda_libraries() -> Check:
    """Check that the loader finds the CUDA and cuDNN libraries of the provider."""
    preload_libraries()
    provider, version = PROVIDER_OF["cuda"], cuda_version() or "of unknown version"
    error = loading_error(provider)
    if error is None:
        return Check("cuda libraries", ok=True, detail=f"CUDA {version}, all found")
    missing = missing_library(error)
    detail = f"CUDA {version} is needed, {f'missing: {missing}' if missing else error}"
    return Check("cuda libraries", ok=False, detail=detail, fix=suggest_fix(error, provider))


def check_gpu() -> Check:
    """Check the driver, and list its GPUs."""
    found = gpus()
    if not found:
        detail = "nvidia-smi is missing or fails" if found is None else "nvidia-smi lists no GPU"
        fix = "install the NVIDIA driver, in a container start it with --gpus all, or choose device cpu"
        return Check("gpu", ok=False, detail=detail, fix=fix)
    detail = ", ".join(f"{gpu.name} ({gpu.memory})" for gpu in found)
    return Check("gpu", ok=True, detail=f"{detail}, driver {found[0].driver}")


def check_cpu() -> Check:
    """Report the instruction sets that int8 depends on."""
    fast = int8_is_fast()
    if fast is None:
        return Check("cpu", ok=True, detail=f"{platform.machine()}, instruction sets unknown")
    advice = "int8 is fast" if fast else "no int8 dot products (VNNI): fp32 may be as fast as int8"
    return Check("cpu", ok=True, detail=f"{' '.join(instruction_sets())}; {advice}")


def check_threads() -> Check:
    """Report the CPUs and the memory that this process may use."""
    usable, visible = available_cpus(), os.cpu_count() or 1
    limited = "" if usable == visible else f" of {visible} visible (affinity or container quota)"
    memory = _memory_limit(Path("/sys/fs/cgroup"))
    held = "" if memory is None else f", container limited to {memory / 2**30:.1f} GiB of memory"
    return Check("threads", ok=True, detail=f"{usable} CPUs{limited}{held}")


def check_opencv() -> Check:
    """Exactly one OpenCV wheel: several share the module cv2."""
    found = _installed(OPENCV_WHEELS)
    detail = ", ".join(f"{name} {version}" for name, version in found.items()) or "not installed by pip"
    if len(found) > 1:
        keep = "opencv-python-headless"
        fix = f"pip uninstall -y {' '.join(found)}, then pip install {keep}"
        return Check("opencv", ok=False, detail=f"{detail}: they overwrite each other", fix=fix)
    return Check("opencv", ok=True, detail=detail)


def check_pyav() -> Check:
    """PyAV and the FFmpeg that it brings."""
    import av  # noqa: PLC0415 - slow to import

    major, minor, _ = av.library_versions["libavcodec"]
    return Check("pyav", ok=True, detail=f"{av.__version__}, FFmpeg (avcodec {major}.{minor})")


def check_decoding(samples: str | os.PathLike[str] = DECODING_SAMPLES) -> Check:
    """Decode small videos of kinds that a broken build of FFmpeg gets wrong.

    Each shows, upright, the colours of `_CORNERS`.
    """
    from xclip_runtime.video import FrameTransform, read_clip  # noqa: PLC0415 - a check, not an import error

    wrong = []
    for path in sorted(Path(samples).iterdir()):
        try:
            frames = read_clip(path, num_frames=4, transform=FrameTransform("hf", 64)).frames
        except XClipError as error:
            wrong.append(f"{path.stem} ({error})")
        else:
            corners = frames[:, 16::32, 16::32].reshape(-1, 4, 3).astype(int)
            if abs(corners - _CORNERS).max() > _COLOUR_TOLERANCE:
                wrong.append(f"{path.stem} (wrong picture)")
    if wrong:
        fix = "pip install --force-reinstall av, whose wheels bring FFmpeg"
        return Check("decoding", ok=False, detail=f"decoded wrong: {', '.join(wrong)}", fix=fix)
    names = ", ".join(path.stem for path in sorted(Path(samples).iterdir()))
    return Check("decoding", ok=True, detail=f"{names}: all right")


def check_bundle(bundle: str | os.PathLike[str]) -> Check:
    """Check size and SHA-256 of every file of a bundle."""
    opened = Bundle.open(bundle)
    problems = [problem for _, problem in opened.problems() if problem]
    if problems:
        return Check("bundle", ok=False, detail=problems[0], fix="copy or export the bundle again")
    return Check("bundle", ok=True, detail=f"{opened.path}: {len(opened.files)} files as exported")


def check_self_test(bundle: str | os.PathLike[str]) -> Check:
    """Run the self-test of a bundle on the device that `auto` chooses."""
    from xclip_runtime.model import XClip  # noqa: PLC0415 - loads numpy, OpenCV and ONNX Runtime
    from xclip_runtime.selftest import self_test  # noqa: PLC0415

    model = XClip(bundle)
    result = self_test(model)
    detail = (
        f"{model.provider} {model.precision}, |Δlogit| {result.max_abs_logit:.2g} of {result.tolerance:.2g} allowed"
    )
    fix = None if result.passed else "run with --device cpu and report the provider's versions"
    return Check("self-test", result.passed, detail, fix)


def _built_in_devices() -> list[Device]:
    try:
        providers = available_providers()
    except XClipError:
        return []
    return [device for device in DEVICES if PROVIDER_OF[device] in providers]


def _cuda_checks() -> list[tuple[str, Callable[[], Check]]]:
    """List the checks of wheels with CUDA."""
    if "cuda" not in _built_in_devices():
        return []
    return [("cuda libraries", check_cuda_libraries), ("gpu", check_gpu)]


def _memory_limit(root: Path) -> int | None:
    """Read the container's memory limit in bytes, from cgroup v2 or v1; None if it has none."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = (root / name).read_text().strip()
        except OSError:
            continue
        # v1 has a number near 2^63 for no limit.
        return int(limit) if limit != "max" and int(limit) < 1 << 60 else None
    return None


def _installed(names: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
