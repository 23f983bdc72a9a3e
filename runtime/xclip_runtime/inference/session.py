"""ONNX Runtime: providers, threads, options, and what was really loaded. Nothing else imports onnxruntime."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import sha256_of
from xclip_runtime.errors import DeviceError
from xclip_runtime.inference import installation
from xclip_runtime.inference.installation import available_providers, onnxruntime_version
from xclip_runtime.inference.providers import (
    CHAIN_OF,
    CPU_PROVIDER,
    DEVICE_CHOICES,
    DEVICES,
    GOALS,
    INSTALL_OF,
    PROVIDER_OF,
    TENSORRT_PROVIDER,
    Compute,
    Device,
    DeviceChoice,
    Goal,
    GraphFile,
    SessionOptions,
    candidate_devices,
    engine_folder,
    parse_provider_options,
    provider_chain,
)
from xclip_runtime.util.cpus import available_cpus

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "CPU_PROVIDER",
    "DEVICES",
    "DEVICE_CHOICES",
    "GOALS",
    "PROVIDER_OF",
    "Compute",
    "Device",
    "DeviceChoice",
    "Goal",
    "Session",
    "SessionOptions",
    "TensorInfo",
    "available_providers",
    "candidate_devices",
    "onnxruntime_version",
    "parse_provider_options",
]

logger = logging.getLogger(__name__)

NO_GRAPH = "-1"
"""The ``gpu_graph_id`` of a run that is neither captured nor replayed."""

# ONNX Runtime's severities, of which the second is its default.
_FATAL, _WARNING = 4, 2

NOTICE_SECONDS = 15.0
"""How often a long build says that it is still going on."""


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
        shapes: Of the inputs, for TensorRT's profile; see :class:`xclip_runtime.inference.providers.GraphFile`.

    Raises:
        DeviceError: The requested device cannot run it here, or ONNX Runtime refuses the file.
        MissingExtraError: ONNX Runtime is not installed.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        options: SessionOptions,
        shapes: Mapping[str, tuple[int | tuple[int, int, int], ...]] | None = None,
    ) -> None:
        ort = installation.onnxruntime()
        _require_provider(ort, options.device)
        digest = sha256_of(Path(path)) if options.device == "tensorrt" else ""
        graph = GraphFile(digest, shapes or {})
        with _notice_of_a_build(options, graph):
            self._session = _create(ort, path, options, graph)
        # A provider that fails at run time would be replaced by the CPU without a word.
        self._session.disable_fallback()
        self.provider: str = self._session.get_providers()[0]
        _check_placement(self._session, options)
        self.options = options
        self.intra_op_threads = options.intra_op_threads or available_cpus()
        self.inputs = tuple(TensorInfo(i.name, i.type, tuple(i.shape)) for i in self._session.get_inputs())
        self.outputs = tuple(TensorInfo(o.name, o.type, tuple(o.shape)) for o in self._session.get_outputs())

    @property
    def metadata(self) -> Mapping[str, str]:
        """The graph's metadata_props."""
        props: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return props

    @property
    def memory(self) -> str:
        """Where tensors between two sessions of this device are kept: "cuda" or "cpu"."""
        return "cuda" if self.options.device in ("cuda", "tensorrt") else "cpu"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on arrays of the host; return every output by name."""
        names = [o.name for o in self.outputs]
        options = self._run_options(NO_GRAPH) if self.options.cuda_graph else None
        return dict(zip(names, self._session.run(names, dict(feeds), options), strict=True))

    def tensor(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """An uninitialised tensor in the memory of this session's device, an OrtValue."""
        return installation.onnxruntime().OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.memory, 0)

    def tensor_of(self, array: NDArray[Any]) -> Any:
        """A tensor with the content of ``array``; on the CPU it shares the array's memory, which must be kept."""
        return installation.onnxruntime().OrtValue.ortvalue_from_numpy(array, self.memory, 0)

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Any:
        """An IOBinding of tensors, by name."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return binding

    def run_bound(self, binding: Any, graph_id: int) -> None:
        """Run on bound tensors and wait for the end.

        Args:
            binding: Of :meth:`bind`.
            graph_id: Number of the CUDA graph that the first run captures and the next ones replay; one for each
                binding, and always from the same thread.
        """
        self._session.run_with_iobinding(binding, self._run_options(str(graph_id)) if self.options.cuda_graph else None)

    def _run_options(self, graph_id: str) -> Any:
        options = installation.onnxruntime().RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph_id)
        return options


def _require_provider(ort: ModuleType, device: Device) -> None:
    """Refuse a device whose provider is not built in or does not load, with the reason."""
    built_in = ort.get_available_providers()
    if device != "cpu":
        installation.preload_libraries()
    for provider in CHAIN_OF[device]:
        if provider not in built_in:
            message = (
                f"device {device} needs {provider}, which this onnxruntime {ort.__version__} was built without "
                f"(it has {', '.join(built_in)}): {INSTALL_OF[device]}"
            )
            raise DeviceError(message)
        # ONNX Runtime would only log it, and go on with the CPU.
        if error := installation.loading_error(provider):
            message = f"device {device} cannot run here, {provider} does not load ({error}): " + installation.mend(
                error, provider
            )
            raise DeviceError(message)


def _create(ort: ModuleType, path: str | os.PathLike[str], options: SessionOptions, graph: GraphFile) -> Any:
    requested = PROVIDER_OF[options.device]
    try:
        with _quiet(ort, options.device):
            return ort.InferenceSession(
                os.fspath(path),
                sess_options=_ort_options(ort, options),
                providers=provider_chain(options, graph),
                # It would print to stdout, and try again on the CPU.
                enable_fallback=0,
            )
    except Exception as error:  # onnxruntime raises many unrelated classes
        message = f"ONNX Runtime cannot load {path} on {requested} ({_first_line(error)})"
        if options.device in ("cuda", "tensorrt") and not installation.gpus():
            message += ", and nvidia-smi shows no GPU: check the driver, or choose device cpu"
        elif options.provider_options:
            message += ": check the values of the provider options"
        elif options.device != "cpu":
            message += ": choose device cpu, or check the provider with xclip-onnx doctor"
        else:
            message += ": export the bundle again"
        raise DeviceError(message) from error


@contextlib.contextmanager
def _quiet(ort: ModuleType, device: Device) -> Iterator[None]:
    """Keep the loading of a provider from logging that there is no plugin for it: every GPU session would."""
    if device == "cpu":
        yield
        return
    ort.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNING)


def _check_placement(session: Any, options: SessionOptions) -> None:
    """Refuse a session that did not come up, in whole, on the providers of its device."""
    requested, chain = PROVIDER_OF[options.device], CHAIN_OF[options.device]
    found = session.get_providers()
    if found[0] != requested:
        message = (
            f"{requested} could not be started, ONNX Runtime fell back to {found[0]}: "
            "check the driver and the CUDA libraries, or choose device cpu"
        )
        raise DeviceError(message)
    # Newer versions of ONNX Runtime tell where each node went.
    recorded = options.device != "cpu"
    placements = getattr(session, "get_provider_graph_assignment_info", None) if recorded else None
    strays = [part for part in (placements() if placements else []) if part.ep_name not in chain]
    if strays:
        nodes = ", ".join(f"{node.op_type} {node.name}" for part in strays for node in part.get_nodes())
        message = f"{strays[0].ep_name} instead of {requested} runs {nodes}: export the bundle again with this version"
        raise DeviceError(message)


def _ort_options(ort: ModuleType, options: SessionOptions) -> Any:
    ort_options = ort.SessionOptions()
    ort_options.intra_op_num_threads = options.intra_op_threads or available_cpus()
    ort_options.inter_op_num_threads = 1
    ort_options.log_severity_level = 4 if options.device != "cpu" else 3
    ort_options.add_session_config_entry(
        "session.intra_op.allow_spinning", "1" if options.optimize_for == "latency" else "0"
    )
    if options.device != "cpu":
        ort_options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        ort_options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return ort_options


@contextlib.contextmanager
def _notice_of_a_build(options: SessionOptions, graph: GraphFile) -> Iterator[None]:
    """Say that TensorRT is going to build an engine, and every while that it still does."""
    folder = engine_folder(options, graph)
    if options.device != "tensorrt" or any(folder.glob("*.engine")):
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    logger.warning("TensorRT builds an engine for this GPU, once; it takes minutes and is kept in %s", folder)
    with still_going(f"{TENSORRT_PROVIDER} is still building"):
        yield


@contextlib.contextmanager
def still_going(what: str, every: float = NOTICE_SECONDS) -> Iterator[None]:
    """Log ``what`` with the seconds that have passed, again and again until the block ends."""
    done = threading.Event()

    def tell() -> None:
        seconds = 0.0
        while not done.wait(every):
            seconds += every
            logger.warning("%s (%.0f s)", what, seconds)

    teller = threading.Thread(target=tell, name="xclip-notice", daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
