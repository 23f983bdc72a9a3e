"""Diagnose this machine: each check tells what it found, and a failed one how to fix it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xclip_runtime.bundle import Bundle
from xclip_runtime.demo import DATA, DEMO_BUNDLE
from xclip_runtime.errors import DeviceError, XClipError
from xclip_runtime.hub.client import endpoint
from xclip_runtime.inference.installation import (
    TENSORRT_LIBRARIES,
    WHEELS,
    cuda_version,
    gpus,
    installed_versions,
    loading_error,
    missing_library,
    onnxruntime_version,
    preload_libraries,
    suggest_fix,
)
from xclip_runtime.inference.plugins import available_providers, ep_devices, plugin_devices, plugin_of, register
from xclip_runtime.inference.providers import PROVIDER_OF, SessionOptions, default_cache_dir
from xclip_runtime.inference.session import Session
from xclip_runtime.util.addresses import without_passwords
from xclip_runtime.util.cpus import available_cpus, instruction_sets, int8_is_fast
from xclip_runtime.util.memory import memory_limit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from xclip_runtime.inference.providers import SessionDevice

OPENCV_WHEELS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
IMAGES = ("jpg", "png")
VIDEO_ENCODERS = ("libx264", "libopenh264", "libx265", "libvpx-vp9", "libaom-av1", "libsvtav1", "mpeg4")
OTHER_EXTRAS = ("cpu", "gpu", "docs", "dev")
"""Extras that are not listed: check_onnxruntime looks at the first two, and the last two are for developers."""

# Without those that are for some platforms only.
_REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)[^;]*; extra == ['\"](?P<extra>\w+)['\"]$")
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


class Finding(NamedTuple):
    """Detail of a check, with the remedy if it failed."""

    detail: str
    fix: str | None = None

    @property
    def ok(self) -> bool:
        """True if the check passed."""
        return self.fix is None


def diagnose(bundle: str | os.PathLike[str] = DEMO_BUNDLE) -> Iterator[Check]:
    """Run every check, the last ones on ``bundle``; an error in a check is a failed check, not an exception."""
    devices = _devices()
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("python", check_python),
        ("onnxruntime", check_onnxruntime),
        *([("cuda libraries", check_cuda_libraries), ("gpu", check_gpu)] if "cuda" in devices else []),
        *((f"device {device}", partial(check_device, device)) for device in devices),
        ("cpu", check_cpu),
        ("threads", check_threads),
        ("opencv", check_opencv),
        ("pyav", check_pyav),
        ("decoding", check_decoding),
        ("encoders", check_encoders),
        ("extras", check_extras),
        *([("hub", check_hub)] if importlib.util.find_spec("huggingface_hub") else []),
        ("home", check_home),
        ("bundle", partial(check_bundle, bundle)),
        ("self-test", partial(check_self_test, bundle)),
    ]
    for name, check in checks:
        try:
            found = check()
        except XClipError as error:
            found = Finding(str(error), str(error).rpartition(": ")[2])
        yield Check(name, found.ok, *found)


def check_python() -> Finding:
    """Report the interpreter and the system."""
    return Finding(f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def check_onnxruntime() -> Finding:
    """Check that exactly one ONNX Runtime wheel is installed."""
    extras = "'xclip-onnx[cpu]' or 'xclip-onnx[gpu]'"
    found = _check_wheels(WHEELS, extras) or Finding("not installed", f"pip install {extras}")
    return Finding(f"{found.detail}, loaded {onnxruntime_version()}") if found.ok else found


def check_device(device: SessionDevice) -> Finding:
    """Check that an execution provider, built in or a plugin, runs a graph here.

    The GPU wheel brings TensorRT's provider but not TensorRT, without which only device tensorrt is unavailable; so is
    only the plugin's own device where a plugin finds no processor that it knows.
    """
    if plugin := plugin_of(device):
        register(plugin)
        try:
            ep_devices(device)
        except DeviceError as error:
            return Finding(f"{error}; only device {device} needs one")
    if device == "tensorrt":
        preload_libraries()
        missing = missing_library(loading_error(PROVIDER_OF[device]))
        if missing is not None and missing.startswith(TENSORRT_LIBRARIES):
            return Finding("TensorRT is not installed; only device tensorrt needs it")
    return Finding(Session(DEMO_BUNDLE / "onnx/prompt_model.onnx", SessionOptions(device)).provider)


def check_cuda_libraries() -> Finding:
    """Check that the loader finds the CUDA and cuDNN libraries of the provider."""
    preload_libraries()
    provider, version = PROVIDER_OF["cuda"], cuda_version() or "of unknown version"
    error = loading_error(provider)
    if error is None:
        return Finding(f"CUDA {version}, all found")
    missing = missing_library(error)
    reason = f"missing: {missing}" if missing else error
    return Finding(f"CUDA {version} is needed, {reason}", suggest_fix(error, provider))


def check_gpu() -> Finding:
    """Check the driver, and list its GPUs."""
    found = gpus()
    if not found:
        detail = "nvidia-smi is missing or fails" if found is None else "nvidia-smi lists no GPU"
        fix = "install the NVIDIA driver, in a container start it with --gpus all, or choose device cpu"
        return Finding(detail, fix)
    detail = ", ".join(f"{gpu.name} ({gpu.memory})" for gpu in found)
    return Finding(f"{detail}, driver {found[0].driver}")


def check_cpu() -> Finding:
    """Report the instruction sets that int8 depends on."""
    fast = int8_is_fast()
    if fast is None:
        return Finding(f"{platform.machine()}, instruction sets unknown")
    advice = "int8 is fast" if fast else "no int8 dot products (VNNI): fp32 may be as fast as int8"
    return Finding(f"{' '.join(instruction_sets())}; {advice}")


def check_threads() -> Finding:
    """Report the CPUs and the memory that this process may use."""
    usable, visible = available_cpus(), os.cpu_count() or 1
    limited = "" if usable == visible else f" of {visible} visible (affinity or container quota)"
    memory = memory_limit()
    held = "" if memory is None else f", container limited to {memory / 2**30:.1f} GiB of memory"
    return Finding(f"{usable} CPUs{limited}{held}")


def check_opencv() -> Finding:
    """Check that not more than one OpenCV wheel is installed."""
    return _check_wheels(OPENCV_WHEELS, "opencv-python-headless") or Finding("not installed by pip")


def check_pyav() -> Finding:
    """Report PyAV and the FFmpeg that it brings."""
    import av  # noqa: PLC0415 - slow to import

    major, minor, _ = av.library_versions["libavcodec"]
    return Finding(f"{av.__version__}, FFmpeg (avcodec {major}.{minor})")


def check_decoding(samples: str | os.PathLike[str] = DECODING_SAMPLES) -> Finding:
    """Decode videos that a broken build of FFmpeg gets wrong; each shows, upright, the colours of `_CORNERS`."""
    from xclip_runtime.video import FrameTransform, read_clip  # noqa: PLC0415 - a check, not an import error

    paths, wrong = sorted(Path(samples).iterdir()), []
    for path in paths:
        try:
            frames = read_clip(path, num_frames=4, transform=FrameTransform("hf", 64)).frames
        except XClipError as error:
            wrong.append(f"{path.stem} ({error})")
        else:
            corners = frames[:, 16::32, 16::32].reshape(-1, 4, 3).astype(int)
            if abs(corners - _CORNERS).max() > _COLOUR_TOLERANCE:
                wrong.append(f"{path.stem} (wrong colours)")
    if wrong:
        fix = "pip install --force-reinstall av, whose wheels bring FFmpeg"
        return Finding(f"decoded wrong: {', '.join(wrong)}", fix)
    return Finding(f"{', '.join(path.stem for path in paths)}: all right")


def check_encoders() -> Finding:
    """Check that OpenCV writes the images of servers and contact sheets; list PyAV's encoders of common videos."""
    import av  # noqa: PLC0415 - slow to import
    import cv2  # noqa: PLC0415

    missing = [kind for kind in IMAGES if not cv2.haveImageWriter(f"image.{kind}")]
    if missing:
        fix = "pip install --force-reinstall opencv-python-headless"
        return Finding(f"OpenCV cannot write {', '.join(missing)}", fix)
    videos = [name for name in VIDEO_ENCODERS if name in av.codecs_available]
    return Finding(f"images: {', '.join(IMAGES)}; videos: {', '.join(videos) or 'none'}")


def check_extras() -> Finding:
    """List the extras that are installed, those of which a smaller part is missing, and the others."""
    complete, incomplete, absent = [], [], []
    for extra, packages in _extras().items():
        missing = [name for name in packages if not installed_versions([name])]
        if not missing:
            complete.append(extra)
        elif len(missing) <= len(packages) / 2:  # more than that is shared with other packages
            incomplete.append(f"{extra} lacks {', '.join(missing)}")
        else:
            absent.append(extra)
    lines = [", ".join(complete) or "none", *incomplete]
    if absent:
        lines.append(f"pip install 'xclip-onnx[EXTRA]' for {', '.join(absent)}")
    return Finding("; ".join(lines))


def check_hub() -> Finding:
    """Check address and folder of downloads of the hub; a home that cannot be written is no fault by itself."""
    try:
        from huggingface_hub import constants, get_token  # noqa: PLC0415 - optional
    except ValueError as error:
        return Finding(f"huggingface_hub cannot read its settings ({error})", "check the variables HF_*")

    token = "with a token" if get_token() else "without a token (HF_TOKEN)"
    found = f"{without_passwords(endpoint())} {token}, downloads in {constants.HF_HUB_CACHE}"
    if _is_writable(Path(constants.HF_HUB_CACHE)):
        return Finding(found)
    if any(variable in os.environ for variable in ("HF_HOME", "HF_HUB_CACHE")):
        return Finding(f"{found}, which cannot be written", "set HF_HOME to a folder that can be written")
    return Finding(f"{found}, which cannot be written: to download, set HF_HOME to another folder")


def check_home() -> Finding:
    """Check the folder of compiled models if it was chosen; a home that cannot be written is no fault by itself."""
    try:
        cache = default_cache_dir()
    except RuntimeError:
        return Finding("none; compiled models and tunings need one, or XCLIP_ONNX_CACHE")
    if _is_writable(cache):
        return Finding(f"compiled models and tunings go to {cache}")
    if "XCLIP_ONNX_CACHE" in os.environ:
        return Finding(f"XCLIP_ONNX_CACHE: cannot write {cache}", "set it to a folder that can be written")
    return Finding(
        f"cannot write {cache}, which compiled models and tunings need: set XCLIP_ONNX_CACHE to another folder"
    )


def check_bundle(bundle: str | os.PathLike[str]) -> Finding:
    """Check size and SHA-256 of every file of a bundle."""
    opened = Bundle.open(bundle)
    problems = [problem for _, problem in opened.problems() if problem]
    if problems:
        return Finding(problems[0], "copy or export the bundle again")
    return Finding(f"{opened.path}: {len(opened.files)} files as exported")


def check_self_test(bundle: str | os.PathLike[str]) -> Finding:
    """Run the self-test of a bundle on the device that `auto` chooses."""
    from xclip_runtime.model import XClip  # noqa: PLC0415 - loads numpy, OpenCV and ONNX Runtime
    from xclip_runtime.selftest import self_test  # noqa: PLC0415

    model = XClip(bundle)
    result = self_test(model)
    delta = f"|Δlogit| {result.max_abs_logit:.2g} of {result.tolerance:.2g} allowed"
    fix = None if result.passed else "run with --device cpu and report the provider's versions"
    chosen = model.info["chosen"]
    hint = "; `xclip-onnx tune` measures what else there is" if chosen == "the default" else f" ({chosen})"
    return Finding(f"{model.provider} {model.precision}, {delta}{hint}", fix)


def _devices() -> list[SessionDevice]:
    try:
        providers = available_providers()
    except XClipError:
        return []
    built_in = [device for device in ("cpu", "cuda", "tensorrt") if PROVIDER_OF[device] in providers]
    return [*built_in, *plugin_devices()]


def _check_wheels(names: Sequence[str], install: str) -> Finding | None:
    """Check that only one of several wheels is installed, since they overwrite each other's files; None if none is."""
    found = installed_versions(names)
    detail = ", ".join(f"{name} {version}" for name, version in found.items())
    if len(found) > 1:
        fix = f"pip uninstall -y {' '.join(found)}, then pip install {install}"
        return Finding(f"{detail}: they overwrite each other", fix)
    return Finding(detail) if found else None


def _extras() -> dict[str, list[str]]:
    """Return the packages of every extra of a user, by the metadata of the installed package."""
    found: dict[str, list[str]] = {}
    try:
        lines = importlib.metadata.requires("xclip-onnx") or []
    except importlib.metadata.PackageNotFoundError:  # run from a folder of sources
        return found
    for line in lines:
        match = _REQUIREMENT.match(line)
        if match and match["extra"] not in OTHER_EXTRAS and match["name"] != "xclip-onnx":
            found.setdefault(match["extra"], []).append(match["name"])
    return found


def _is_writable(folder: Path) -> bool:
    """Return True if the folder can be written, or made."""
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK)
