"""Sessions of ONNX Runtime that run on the requested execution providers or raise."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from xclip_runtime.bundle import sha256_of
from xclip_runtime.errors import DeviceError
from xclip_runtime.inference import installation, plugins
from xclip_runtime.inference.providers import (
    CPU_PROVIDER,
    INSTALL_OF,
    TENSORRT_PROVIDER,
    GraphFile,
    SessionOptions,
    engine_folder,
    provider_chain,
    unknown_options,
)
from xclip_runtime.util.cpus import available_cpus
from xclip_runtime.util.plain_text import first_line
from xclip_runtime.util.system_errors import explain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    import numpy as np
    from numpy.typing import NDArray

logger = logging.getLogger(__name__)

NO_GRAPH = "-1"
"""The ``gpu_graph_id`` of a run that is neither captured nor replayed."""

# Severities of ONNX Runtime's log; it logs warnings unless told otherwise.
_FATAL, _ERROR, _WARNING = 4, 3, 2

NOTICE_SECONDS = 15.0
"""Seconds between two log lines of a long build."""


@dataclass(frozen=True)
class TensorInfo:
    """Name, element type and shape of a graph's input or output; dynamic axes are strings."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class Binding(NamedTuple):
    """An IOBinding, and the tensors of its inputs."""

    io: Any
    inputs: Mapping[str, Any]


class Session:
    """An ONNX Runtime session of one graph; ``provider`` is the execution provider that runs it.

    ``shapes`` are those of `GraphFile`, for TensorRT's profile.

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
        _require_providers(ort, options)
        digest = sha256_of(Path(path)) if options.device == "tensorrt" else ""
        graph = GraphFile(digest, shapes or {})
        with _notice_of_a_build(options, graph):
            self._session = _create(ort, path, options, graph)
        # Otherwise a provider that fails at run time is replaced by the CPU without an error.
        self._session.disable_fallback()
        self.provider: str = self._session.get_providers()[0]
        _check_placement(self._session, options)
        self.options = options
        # A plugin has memory of its own, also on the CPU: an input is copied when it is bound, not when the graph runs.
        self._copies_inputs = _on_plugin(options)
        self.threads = self._session.get_session_options().intra_op_num_threads or available_cpus()
        self.inputs = tuple(TensorInfo(i.name, i.type, tuple(i.shape)) for i in self._session.get_inputs())
        self.outputs = tuple(TensorInfo(o.name, o.type, tuple(o.shape)) for o in self._session.get_outputs())

    @property
    def metadata(self) -> Mapping[str, str]:
        """The graph's metadata_props."""
        props: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return props

    @property
    def memory(self) -> str:
        """Memory of the tensors that two sessions of this device share: "cuda" or "cpu"."""
        return "cuda" if self.options.device in ("cuda", "tensorrt") else "cpu"

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        """Run the graph on host arrays and return every output by name."""
        names = [o.name for o in self.outputs]
        options = self._run_options(NO_GRAPH) if self.options.cuda_graph else None
        return dict(zip(names, self._session.run(names, dict(feeds), options), strict=True))

    def tensor(self, shape: tuple[int, ...], dtype: type[np.generic]) -> Any:
        """Allocate an uninitialised OrtValue in the memory of this session's device."""
        return installation.onnxruntime().OrtValue.ortvalue_from_shape_and_type(list(shape), dtype, self.memory, 0)

    def tensor_of(self, array: NDArray[Any]) -> Any:
        """Create an OrtValue with the content of ``array``, whose memory it shares on the CPU."""
        return installation.onnxruntime().OrtValue.ortvalue_from_numpy(array, self.memory, 0)

    def bind(self, inputs: Mapping[str, Any], outputs: Mapping[str, Any]) -> Binding:
        """Bind tensors, by name."""
        binding = self._session.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name, value in outputs.items():
            binding.bind_ortvalue_output(name, value)
        return Binding(binding, inputs)

    def run_bound(self, binding: Binding, graph_id: int) -> None:
        """Run on bound tensors and wait for the result.

        The first run captures a CUDA graph and the next ones replay it: each binding has a number of its own for it,
        ``graph_id``, and is always run from the same thread.
        """
        if self._copies_inputs:
            for name, value in binding.inputs.items():
                binding.io.bind_ortvalue_input(name, value)
        self._session.run_with_iobinding(
            binding.io, self._run_options(str(graph_id)) if self.options.cuda_graph else None
        )

    def _run_options(self, graph_id: str) -> Any:
        options = installation.onnxruntime().RunOptions()
        options.add_run_config_entry("gpu_graph_id", graph_id)
        return options


def check_providers(options: SessionOptions) -> None:
    """Raise the error that a `Session` with these options would raise before it reads its graph."""
    _require_providers(installation.onnxruntime(), options)


def _require_providers(ort: ModuleType, options: SessionOptions) -> None:
    """Refuse providers that are not built in or do not load, with the reason."""
    if _on_plugin(options) and not options.providers:
        plugins.ep_devices(options.device)
        provider_chain(options, GraphFile())
        return
    for plugin in filter(None, map(plugins.plugin_of, options.chain)):
        plugins.register(plugin)
    built_in = ort.get_available_providers()
    if options.chain != (CPU_PROVIDER,):
        installation.preload_libraries()
    wanted = "the list of providers" if options.providers else f"device {options.device}"
    for provider in options.chain:
        if provider not in built_in and not plugins.plugin_of(provider):
            install = INSTALL_OF.get(options.device, f"install the wheel that has {provider}")
            message = (
                f"{wanted} needs {provider}, which this onnxruntime {ort.__version__} was built without "
                f"(it has {', '.join(built_in)}): {install}"
            )
            raise DeviceError(message)
        # ONNX Runtime would only log it, and fall back to the CPU.
        if error := installation.loading_error(provider):
            fix = installation.suggest_fix(error, provider)
            message = f"{wanted} cannot run here, {provider} does not load ({error}): {fix}"
            raise DeviceError(message)


def _create(ort: ModuleType, path: str | os.PathLike[str], options: SessionOptions, graph: GraphFile) -> Any:
    ort_options = _ort_options(ort, options)
    chain: list[tuple[str, dict[str, str]]] | None = provider_chain(options, graph)
    try:
        if _on_plugin(options):
            _add_providers(ort_options, options, chain or [])
            chain = None
        with _quiet(ort, options):
            return ort.InferenceSession(
                os.fspath(path),
                sess_options=ort_options,
                providers=chain,
                # It would print to stdout, and try again on the CPU.
                enable_fallback=0,
            )
    except Exception as error:  # onnxruntime raises many unrelated classes
        message = f"ONNX Runtime cannot load {path} on {options.chain[0]} ({first_line(error)}){_hint(options)}"
        raise DeviceError(message) from error


def _on_plugin(options: SessionOptions) -> bool:
    return any(map(plugins.plugin_of, options.chain))


def _add_providers(ort_options: Any, options: SessionOptions, chain: list[tuple[str, dict[str, str]]]) -> None:
    """Add plugins by their devices, and built-in providers by their names."""
    if ort_options.has_providers():  # an object of the user's, which an earlier session has already used
        return
    for name, given in chain:
        if plugins.plugin_of(name):
            device = name if options.providers else options.device
            ort_options.add_provider_for_devices(plugins.ep_devices(device), given)
        elif name != CPU_PROVIDER:  # always there, as the last one
            ort_options.add_provider(name, given)


def _hint(options: SessionOptions) -> str:
    """Return the end of the message of a session that cannot be created."""
    if options.device in ("cuda", "tensorrt") and not installation.gpus():
        return ", and nvidia-smi shows no GPU: check the driver, or choose device cpu"
    if options.providers:
        return ": check the list of providers and their options"
    if options.provider_options:
        return f": check the provider options ({'; '.join(unknown_options(options)) or 'their values'})"
    if options.session_options is not None:
        return ": check the session options"
    if options.device != "cpu":
        return ": choose device cpu, or check the provider with xclip-onnx doctor"
    return ": export the bundle again"


@contextlib.contextmanager
def _quiet(ort: ModuleType, options: SessionOptions) -> Iterator[None]:
    """Silence the warning of a missing plugin that every session on a GPU would log."""
    if options.chain == (CPU_PROVIDER,):
        yield
        return
    ort.set_default_logger_severity(_FATAL)
    try:
        yield
    finally:
        ort.set_default_logger_severity(_WARNING)


def _check_placement(session: Any, options: SessionOptions) -> None:
    """Refuse a session whose nodes are not all on the requested providers, or none of them on the first."""
    requested, chain = options.chain[0], options.chain
    found = session.get_providers()
    if found[0] != requested:
        message = (
            f"{requested} could not be started, ONNX Runtime fell back to {found[0]}: "
            "check the driver and the CUDA libraries, or choose device cpu"
        )
        raise DeviceError(message)
    # Newer versions of ONNX Runtime report the provider of each node.
    recorded = chain != (CPU_PROVIDER,)
    report = getattr(session, "get_provider_graph_assignment_info", None) if recorded else None
    placements = report() if report else []
    strays = [part for part in placements if part.ep_name not in chain]
    if strays:
        nodes = ", ".join(f"{node.op_type} {node.name}" for part in strays for node in part.get_nodes())
        message = f"{strays[0].ep_name} instead of {requested} runs {nodes}: export the bundle again with this version"
        raise DeviceError(message)
    if options.providers and placements and requested not in {part.ep_name for part in placements}:
        message = f"{requested} takes no node of the graph: leave it out of the list of providers"
        raise DeviceError(message)


def _ort_options(ort: ModuleType, options: SessionOptions) -> Any:
    given = options.session_options
    entries: dict[str, str] = {}
    if given is None or isinstance(given, Mapping):
        ort_options = ort.SessionOptions()
        ort_options.intra_op_num_threads = available_cpus()
        ort_options.inter_op_num_threads = 1
        ort_options.log_severity_level = _ERROR if options.chain == (CPU_PROVIDER,) else _FATAL
        entries["session.intra_op.allow_spinning"] = "1" if options.optimize_for == "latency" else "0"
        entries.update({str(key): str(value) for key, value in (given or {}).items()})
    elif hasattr(given, "add_session_config_entry"):
        ort_options = given
    else:
        message = f"session_options is of type {type(given).__name__}: give an onnxruntime.SessionOptions, or a mapping"
        raise DeviceError(message)
    if options.threads is not None:
        ort_options.intra_op_num_threads = options.threads
    # Last, so that no option brings back ONNX Runtime's default: to fall back to the CPU without an error.
    entries["session.disable_cpu_ep_fallback"] = "0" if CPU_PROVIDER in options.chain else "1"
    entries["session.record_ep_graph_assignment_info"] = "0" if options.chain == (CPU_PROVIDER,) else "1"
    for key, value in entries.items():
        if _config_entry(ort_options, key) != value:
            ort_options.add_session_config_entry(key, value)
    return ort_options


def _config_entry(ort_options: Any, key: str) -> str | None:
    try:
        return str(ort_options.get_session_config_entry(key))
    except RuntimeError:  # not set
        return None


@contextlib.contextmanager
def _notice_of_a_build(options: SessionOptions, graph: GraphFile) -> Iterator[None]:
    """Log that TensorRT builds an engine, and at intervals that it is still building."""
    folder = engine_folder(options, graph) if options.device == "tensorrt" else None
    if folder is None or any(folder.glob("*.engine")):
        yield
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"TensorRT's engines cannot be kept: {explain(error)}, with XCLIP_ONNX_CACHE"
        raise DeviceError(message) from error
    logger.warning("TensorRT builds an engine for this GPU, once; it takes minutes and is kept in %s", folder)
    with still_going(f"{TENSORRT_PROVIDER} is still building"):
        yield


@contextlib.contextmanager
def still_going(what: str, every: float = NOTICE_SECONDS) -> Iterator[None]:
    """Log ``what`` with the elapsed seconds, every ``every`` seconds until the block ends."""
    done = threading.Event()

    def notify() -> None:
        seconds = 0.0
        while not done.wait(every):
            seconds += every
            logger.warning("%s (%.0f s)", what, seconds)

    notifier = threading.Thread(target=notify, name="xclip-notice", daemon=True)
    notifier.start()
    try:
        yield
    finally:
        done.set()
        notifier.join()
