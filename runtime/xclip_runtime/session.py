"""ONNX Runtime: providers, threads, options, and what was really loaded. Nothing else imports onnxruntime."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from xclip_runtime.cpus import available_cpus
from xclip_runtime.errors import DeviceError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

Device = Literal["cpu", "cuda", "tensorrt", "openvino"]
DEVICES: tuple[Device, ...] = get_args(Device)
DeviceChoice = Literal["auto", "cpu", "cuda", "tensorrt", "openvino"]
DEVICE_CHOICES: tuple[DeviceChoice, ...] = get_args(DeviceChoice)
Goal = Literal["latency", "throughput"]
GOALS: tuple[Goal, ...] = get_args(Goal)

CPU_PROVIDER = "CPUExecutionProvider"

PROVIDER_OF: Mapping[Device, str] = {
    "cpu": CPU_PROVIDER,
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}

INSTALL_OF: Mapping[Device, str] = {
    "cuda": "pip uninstall onnxruntime && pip install 'xclip-onnx[gpu]'",
    "tensorrt": "pip uninstall onnxruntime && pip install 'xclip-onnx[gpu]', and install TensorRT",
    "openvino": "pip uninstall onnxruntime && pip install onnxruntime-openvino",
}


@dataclass(frozen=True)
class SessionOptions:
    """How sessions are made.

    Attributes:
        device: Where to run: there or not at all.
        intra_op_threads: Threads inside an operator; None takes :func:`available_cpus`.
        optimize_for: "throughput" lets idle threads sleep, so that the video decoder and other processes get their
            cores; "latency" lets them spin between operators, for a machine that does nothing else.
    """

    device: Device = "cpu"
    intra_op_threads: int | None = None
    optimize_for: Goal = "throughput"

    def __post_init__(self) -> None:
        if self.optimize_for not in GOALS:
            message = f"cannot optimise for {self.optimize_for!r}: choose one of {', '.join(GOALS)}"
            raise DeviceError(message)
        if self.intra_op_threads is not None and self.intra_op_threads < 1:
            message = f"intra_op_threads is {self.intra_op_threads}: give at least 1"
            raise DeviceError(message)


@dataclass(frozen=True)
class TensorInfo:
    """Name, element type and shape of a graph's input or output; dynamic axes are strings."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Session:
    """A graph, loaded on the provider that ``provider`` names.

    Args:
        path: The .onnx file.
        options: How to run it.

    Raises:
        DeviceError: The requested device cannot run it here, or ONNX Runtime refuses the file.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(self, path: str | os.PathLike[str], options: SessionOptions) -> None:
        ort = _onnxruntime()
        requested = _provider(ort, options.device)
        try:
            self._session = ort.InferenceSession(
                os.fspath(path), sess_options=_ort_options(ort, options), providers=[requested]
            )
        except Exception as error:  # onnxruntime raises many unrelated classes
            message = f"ONNX Runtime cannot load {path} on {requested}: {_first_line(error)}"
            raise DeviceError(message) from error
        # A provider that fails at run time would be replaced by the CPU without a word.
        self._session.disable_fallback()
        self.provider: str = self._session.get_providers()[0]
        if self.provider != requested:
            message = (
                f"{requested} could not be started, ONNX Runtime fell back to {self.provider}: "
                "check the driver and the CUDA libraries, or choose device cpu"
            )
            raise DeviceError(message)
        self.options = options
        self.intra_op_threads = options.intra_op_threads or available_cpus()
        self.inputs = tuple(TensorInfo(i.name, i.type, tuple(i.shape)) for i in self._session.get_inputs())
        self.outputs = tuple(TensorInfo(o.name, o.type, tuple(o.shape)) for o in self._session.get_outputs())

    @property
    def metadata(self) -> Mapping[str, str]:
        """The graph's metadata_props."""
        props: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return props

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph; return every output by name."""
        names = [o.name for o in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feeds)), strict=True))


def candidate_devices(choice: DeviceChoice) -> tuple[Device, ...]:
    """The devices to try in turn: one that is named stands alone, "auto" is CUDA, if built in, and then the CPU.

    Raises:
        DeviceError: The name is unknown.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if choice == "auto":
        return ("cuda", "cpu") if PROVIDER_OF["cuda"] in available_providers() else ("cpu",)
    if choice not in DEVICES:
        message = f"unknown device {choice!r}: choose one of {', '.join(DEVICE_CHOICES)}"
        raise DeviceError(message)
    return (choice,)


def onnxruntime_version() -> str:
    """Version of the installed ONNX Runtime."""
    return str(_onnxruntime().__version__)


def available_providers() -> tuple[str, ...]:
    """The execution providers that the installed ONNX Runtime was built with."""
    return tuple(_onnxruntime().get_available_providers())


def _onnxruntime() -> ModuleType:
    try:
        import onnxruntime  # noqa: PLC0415 - optional: the extra decides between CPU and GPU
    except ImportError as error:
        feature = "running a model"
        raise MissingExtraError(feature, "cpu") from error
    module: ModuleType = onnxruntime
    return module


def _provider(ort: ModuleType, device: Device) -> str:
    provider = PROVIDER_OF[device]
    built_in = ort.get_available_providers()
    if provider not in built_in:
        message = (
            f"device {device} needs {provider}, which this onnxruntime {ort.__version__} was built without "
            f"(it has {', '.join(built_in)}): {INSTALL_OF[device]}"
        )
        raise DeviceError(message)
    return provider


def _ort_options(ort: ModuleType, options: SessionOptions) -> Any:
    ort_options = ort.SessionOptions()
    ort_options.intra_op_num_threads = options.intra_op_threads or available_cpus()
    ort_options.inter_op_num_threads = 1
    ort_options.log_severity_level = 3
    ort_options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.optimize_for == "latency" else "0"
    )
    if options.device != "cpu":
        ort_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    return ort_options


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
