"""Execution providers that are packages of their own, registered beside the plain onnxruntime wheel."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import DeviceError, MissingExtraError
from xclip_runtime.inference import installation

if TYPE_CHECKING:
    from collections.abc import Sequence

OPENVINO_PROVIDER = "OpenVINOExecutionProvider"
PREFIX = "plugin:"
OPENVINO_DEVICES = ("openvino", "openvino:gpu", "openvino:npu")
OLDEST_ONNXRUNTIME = "1.23"

_registration = threading.Lock()


@dataclass(frozen=True)
class Plugin:
    """A package that brings an execution provider."""

    name: str
    """NAME of device plugin:NAME."""
    package: str
    provider: str
    extra: str | None = None
    """Extra of xclip-onnx that installs it; None if nobody has run it with these graphs."""

    @property
    def module(self) -> str:
        """Name of the module to import."""
        return self.package.replace("-", "_")

    @property
    def installed(self) -> bool:
        """True if the package is installed; nothing is loaded."""
        return importlib.util.find_spec(self.module) is not None


OPENVINO = Plugin("openvino", "onnxruntime-ep-openvino", OPENVINO_PROVIDER, "openvino")
PLUGINS = (
    OPENVINO,
    Plugin("nv-tensorrt-rtx", "onnxruntime-ep-nv-tensorrt-rtx", "NvTensorRTRTXExecutionProvider"),
    Plugin("webgpu", "onnxruntime-ep-webgpu", "WebGpuExecutionProvider"),
    Plugin("mlx", "onnxruntime-ep-mlx", "MLXExecutionProvider"),
    Plugin("qnn", "onnxruntime-qnn", "QNNExecutionProvider"),
)


def plugin_of(device: str) -> Plugin | None:
    """Return the plugin that runs a device, or the one that brings a provider of that name; None for built-in ones."""
    if device in OPENVINO_DEVICES:
        return OPENVINO
    name = device.removeprefix(PREFIX)
    if device.startswith(PREFIX):
        return next((plugin for plugin in PLUGINS if name in (plugin.name, plugin.package, plugin.provider)), None)
    return next((plugin for plugin in PLUGINS if device == plugin.provider), None)


def kind_of(device: str) -> str | None:
    """Return the kind of processor of a plugin's device: "CPU", "GPU" or "NPU"; None takes the plugin's first."""
    if device not in OPENVINO_DEVICES:
        return None
    return device.rpartition(":")[2].upper() if device in OPENVINO_DEVICES[1:] else "CPU"


def register(plugin: Plugin) -> None:
    """Register a plugin's library with ONNX Runtime, once in a process.

    Raises:
        DeviceError: ONNX Runtime is too old, the package is missing, or its library does not load.
        MissingExtraError: The package, or ONNX Runtime, is not installed.
    """
    ort = installation.onnxruntime()
    if not plugin.installed:
        if plugin.extra:
            feature = f"device {plugin.name}"
            raise MissingExtraError(feature, plugin.extra)
        message = f"device {PREFIX}{plugin.name} needs a package: pip install {plugin.package}"
        raise DeviceError(message)
    if not hasattr(ort, "register_execution_provider_library"):
        message = (
            f"{plugin.package} needs onnxruntime {OLDEST_ONNXRUNTIME} or newer, this is {ort.__version__}: "
            "pip install --upgrade onnxruntime"
        )
        raise DeviceError(message)
    with _registration:
        # Also if the user has registered it, under another name.
        if any(found.ep_name == plugin.provider for found in ort.get_ep_devices()) or plugin in _registered:
            return
        try:
            library = importlib.import_module(plugin.module).get_library_path()
            ort.register_execution_provider_library(plugin.provider, str(library))
        except Exception as error:  # onnxruntime raises many unrelated classes, and so does a broken package
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            message = (
                f"{plugin.package} cannot be registered ({reason}): pip install --force-reinstall {plugin.package}"
            )
            raise DeviceError(message) from error
        _registered.add(plugin)


_registered: set[Plugin] = set()


def ep_devices(device: str) -> Sequence[Any]:
    """Return ONNX Runtime's device objects of a plugin's device, one or more.

    Raises:
        DeviceError: The plugin cannot be registered, or finds no such processor here.
        MissingExtraError: The package is not installed.
    """
    plugin, kind = plugin_of(device), kind_of(device)
    assert plugin is not None  # noqa: S101 - candidate_devices has refused the others
    register(plugin)
    devices = [found for found in installation.onnxruntime().get_ep_devices() if found.ep_name == plugin.provider]
    kinds = sorted({found.device.type.name for found in devices})
    chosen = [found for found in devices if kind in (None, found.device.type.name)][:1]
    if not chosen:
        intel = ", which knows Intel's processors only," if plugin is OPENVINO else ""
        message = (
            f"device {device} is not here: {plugin.package}{intel} finds {' and '.join(kinds) or 'nothing'}: "
            "choose device cpu"
        )
        raise DeviceError(message)
    return chosen


def capabilities(device: str) -> frozenset[str]:
    """Return the arithmetic that a plugin's device says it has, such as "BF16"; empty if it does not say."""
    return frozenset(str(ep_devices(device)[0].ep_metadata.get("OPTIMIZATION_CAPABILITIES", "")).split())


def plugin_devices() -> list[str]:
    """Return the devices that the installed plugins may have."""
    own = [PREFIX + plugin.name for plugin in PLUGINS if plugin is not OPENVINO and plugin.installed]
    return [*(OPENVINO_DEVICES[:1] if OPENVINO.installed else ()), *own]


def available_providers() -> tuple[str, ...]:
    """Return the execution providers of the installed ONNX Runtime, and of the plugins that are installed."""
    own = installation.available_providers()
    return (*own, *(plugin.provider for plugin in PLUGINS if plugin.installed and plugin.provider not in own))
