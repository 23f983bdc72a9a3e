"""Execution providers: their order on each device, and their options."""

from __future__ import annotations

import difflib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from xclip_runtime.errors import DeviceError
from xclip_runtime.inference.installation import gpus
from xclip_runtime.inference.plugins import (
    OPENVINO_DEVICES,
    OPENVINO_PROVIDER,
    PLUGINS,
    PREFIX,
    available_providers,
    capabilities,
    kind_of,
    plugin_of,
)
from xclip_runtime.util.arguments import check_count
from xclip_runtime.util.cpus import available_cpus

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Device = Literal["cpu", "cuda", "tensorrt", "openvino"]
DEVICES: tuple[Device, ...] = get_args(Device)
"""Devices that a model repository can be written for."""
DeviceChoice = str
"""One of `DEVICE_CHOICES`, or plugin:NAME."""
DEVICE_CHOICES = ("auto", "cpu", "cuda", "tensorrt", *OPENVINO_DEVICES, *(PREFIX + p.name for p in PLUGINS[1:]))
SessionDevice = str
"""A device, or "other" for execution providers that only the user of ``providers`` knows."""
Goal = Literal["latency", "throughput"]
GOALS: tuple[Goal, ...] = get_args(Goal)
Compute = Literal["fp32", "fp16", "bf16", "int8"]
"""Arithmetic of the vision graph: the graph's own, or that in which TensorRT or OpenVINO compute an fp32 graph."""
ProviderSpec = tuple[str, "Mapping[str, str]"]
"""Name and options of an execution provider."""

CPU_PROVIDER = "CPUExecutionProvider"
CUDA_PROVIDER = "CUDAExecutionProvider"
TENSORRT_PROVIDER = "TensorrtExecutionProvider"

CHAIN_OF: Mapping[SessionDevice, tuple[str, ...]] = {
    "cpu": (CPU_PROVIDER,),
    "cuda": (CUDA_PROVIDER,),
    # TensorRT leaves what it does not know to CUDA, never to the CPU.
    "tensorrt": (TENSORRT_PROVIDER, CUDA_PROVIDER),
    **dict.fromkeys(OPENVINO_DEVICES, (OPENVINO_PROVIDER,)),
    **{PREFIX + plugin.name: (plugin.provider,) for plugin in PLUGINS[1:]},
}

PROVIDER_OF: Mapping[SessionDevice, str] = {device: chain[0] for device, chain in CHAIN_OF.items()}

INSTALL_OF: Mapping[SessionDevice, str] = {
    "cuda": "pip uninstall onnxruntime && pip install 'xclip-onnx[gpu]'",
    "tensorrt": "pip uninstall onnxruntime && pip install 'xclip-onnx[gpu]', and install TensorRT",
}


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


# The options of onnxruntime-gpu 1.31 and onnxruntime-ep-openvino 1.8, to route and to suggest. Others are passed on.
KNOWN_OPTIONS: Mapping[str, frozenset[str]] = {
    CPU_PROVIDER: frozenset(),
    CUDA_PROVIDER: _names(
        "arena_extend_strategy cudnn_conv1d_pad_to_nc1d cudnn_conv_algo_search cudnn_conv_use_max_workspace device_id "
        "do_copy_in_default_stream enable_cuda_graph enable_cudnn enable_skip_layer_norm_strict_mode fuse_conv_bias "
        "gpu_mem_limit prefer_nhwc sdpa_kernel tunable_op_enable tunable_op_max_tuning_duration_ms "
        "tunable_op_tuning_enable use_ep_level_unified_stream use_tf32 user_compute_stream"
    ),
    TENSORRT_PROVIDER: _names(
        "device_id has_user_compute_stream user_compute_stream "
        "trt_auxiliary_streams trt_bf16_enable trt_build_heuristics_enable trt_builder_optimization_level "
        "trt_context_memory_sharing_enable trt_cuda_graph_enable trt_detailed_build_log trt_dump_ep_context_model "
        "trt_dump_subgraphs trt_engine_cache_enable trt_engine_cache_path trt_engine_cache_prefix "
        "trt_engine_hw_compatible trt_ep_context_embed_mode trt_ep_context_file_path trt_extra_plugin_lib_paths "
        "trt_force_sequential_engine_build trt_force_timing_cache trt_fp16_enable trt_layer_norm_fp32_fallback "
        "trt_max_partition_iterations trt_max_workspace_size trt_min_subgraph_size trt_op_types_to_exclude "
        "trt_preview_features trt_profile_max_shapes trt_profile_min_shapes trt_profile_opt_shapes "
        "trt_sparsity_enable trt_tactic_sources trt_timing_cache_enable trt_timing_cache_path"
    ),
    OPENVINO_PROVIDER: frozenset({"load_config"}),
}

OPENVINO_HINT: Mapping[Compute, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}


@dataclass(frozen=True)
class SessionOptions:
    """Options of the sessions of a model.

    Raises:
        DeviceError: An option belongs to another device or is out of its range.
        ValueError: ``max_batch`` is below 1.
    """

    device: SessionDevice = "cpu"
    """Device to run on, without fallback."""
    threads: int | None = None
    """Threads inside an operator; None takes `available_cpus`."""
    optimize_for: Goal = "throughput"
    """Goal: "throughput" lets idle threads sleep, so that the decoder and other processes get their cores, and gives a
    GPU's memory arena room to grow; "latency" lets threads spin, for a machine that does nothing else, and takes no
    more GPU memory than one shape needs."""
    precision: Compute = "fp32"
    """Arithmetic of TensorRT and OpenVINO on an fp32 graph; on the CPU and on CUDA the graph decides."""
    max_batch: int = 1
    """Largest batch; sizes TensorRT's profile."""
    provider_options: Mapping[str, str] = field(default_factory=dict)
    """Further options of the device's providers, by ONNX Runtime's names."""
    cache_dir: Path | None = None
    """Folder of TensorRT's engines and OpenVINO's compiled models; None takes `default_cache_dir`."""
    providers: tuple[ProviderSpec, ...] = ()
    """Execution providers to use as they are, in place of the device's own with their defaults."""
    session_options: Any = None
    """Config entries that win over the defaults, or an ``onnxruntime.SessionOptions`` that takes their place."""

    def __post_init__(self) -> None:
        if self.optimize_for not in GOALS:
            message = f"cannot optimise for {self.optimize_for!r}: choose one of {', '.join(GOALS)}"
            raise DeviceError(message)
        check_count("threads", self.threads, "all CPUs")
        check_count("batch_size", self.max_batch)
        _check_provider_options(self.chain, self.provider_options)

    @property
    def chain(self) -> tuple[str, ...]:
        """The execution providers in their order; no other may run a node."""
        return tuple(name for name, _ in self.providers) or CHAIN_OF[self.device]

    @property
    def cuda_graph(self) -> bool:
        """True if runs are captured once per shape and replayed: on CUDA, unless ``enable_cuda_graph`` is 0."""
        given, default = (self.providers[0][1], "0") if self.providers else (self.provider_options, "1")
        return self.device == "cuda" and given.get("enable_cuda_graph", default) in ("1", "True", "true")


@dataclass(frozen=True)
class GraphFile:
    """Facts of a graph that provider options depend on."""

    digest: str = ""
    """SHA-256 of the file, for the folder of its TensorRT engines."""
    shapes: Mapping[str, tuple[int | tuple[int, int, int], ...]] = field(default_factory=dict)
    """Shapes of the inputs, by name; a dynamic axis is (smallest, usual, largest)."""


def provider_chain(options: SessionOptions, graph: GraphFile) -> list[tuple[str, dict[str, str]]]:
    """Return the execution providers of a session with their options."""
    if options.providers:
        return [(name, dict(given)) for name, given in options.providers]
    return [
        (provider, {**_defaults(provider, options, graph), **options_for(provider, options)})
        for provider in options.chain
    ]


def options_for(provider: str, options: SessionOptions) -> dict[str, str]:
    """Return the user's options that a provider of the chain gets: all that it knows, and its share of the others."""
    known = {name for other in options.chain for name in KNOWN_OPTIONS.get(other, ())}
    return {
        key: value
        for key, value in options.provider_options.items()
        if key in KNOWN_OPTIONS.get(provider, ()) or (key not in known and provider == _owner(key, options.chain))
    }


def unknown_options(options: SessionOptions) -> list[str]:
    """Describe the provider options that no table lists, which ONNX Runtime is left to judge."""
    known = sorted({name for provider in options.chain for name in KNOWN_OPTIONS.get(provider, ())})
    lines = []
    for key in options.provider_options:
        if key not in known:
            close = difflib.get_close_matches(key, known, n=3)
            hint = f", did you mean {' or '.join(close)}?" if close else ""
            lines.append(f"{key} is passed to {_owner(key, options.chain)} unchecked{hint}")
    return lines


def check_choice(device: DeviceChoice, provider_options: object, providers: object) -> None:
    """Refuse provider options without a named device, and a device beside a list of providers (DeviceError)."""
    if providers is not None and (device != "auto" or provider_options):
        message = "providers takes the place of device and provider_options: leave those out"
        raise DeviceError(message)
    if provider_options and device == "auto":
        message = "provider options belong to one provider, device auto may take another: name the device"
        raise DeviceError(message)


def parse_providers(providers: Sequence[str | tuple[str, Mapping[str, object]]] | None) -> tuple[ProviderSpec, ...]:
    """Read a list of execution providers as ``onnxruntime.InferenceSession`` takes it, or raise a DeviceError."""
    if providers is None:
        return ()
    try:
        pairs = [] if isinstance(providers, str) else [(p, {}) if isinstance(p, str) else p for p in providers]
        parsed = tuple((str(name), {str(k): str(v) for k, v in dict(given).items()}) for name, given in pairs)
    except (TypeError, ValueError):
        parsed = ()
    if not parsed:
        shown = " ".join(repr(providers).split())
        message = f"providers is {shown}: give a list such as ['CUDAExecutionProvider'], with options as a pair"
        raise DeviceError(message)
    return parsed


def device_of(provider: str) -> SessionDevice:
    """Return the device whose graph and memory suit a provider that the user configures."""
    return {CPU_PROVIDER: "cpu", CUDA_PROVIDER: "cuda"}.get(provider, "other")


def candidate_devices(choice: DeviceChoice) -> tuple[SessionDevice, ...]:
    """Return the devices to try in turn: a named one alone; for "auto" CUDA, if built in, and then the CPU."""
    if choice == "auto":
        return ("cuda", "cpu") if PROVIDER_OF["cuda"] in available_providers() else ("cpu",)
    return (parse_device(choice),)


def parse_device(text: str) -> DeviceChoice:
    """Return a device in its usual spelling; an unknown one is a DeviceError with suggestions."""
    text = str(text)
    plugin = plugin_of(text) if text.startswith(PREFIX) else None
    device = PREFIX + plugin.name if plugin else text
    device = "openvino" if device == "plugin:openvino" else device
    if device not in DEVICE_CHOICES:
        close = ["cuda"] if text == "gpu" else difflib.get_close_matches(text, DEVICE_CHOICES, n=2)
        hint = f"did you mean {' or '.join(close)}? Choose" if close else "choose"
        message = f"unknown device {text!r}: {hint} one of {', '.join(DEVICE_CHOICES)}"
        raise DeviceError(message)
    return device


def default_cache_dir() -> Path:
    """Return $XCLIP_ONNX_CACHE, else xclip-onnx in $XDG_CACHE_HOME or ~/.cache; without a home, a DeviceError."""
    if chosen := os.environ.get("XCLIP_ONNX_CACHE"):
        return Path(chosen)
    if home := os.environ.get("XDG_CACHE_HOME"):
        return Path(home) / "xclip-onnx"
    try:
        return Path.home() / ".cache" / "xclip-onnx"
    except RuntimeError:
        message = "no home folder for compiled models: set XCLIP_ONNX_CACHE to a folder that can be written"
        raise DeviceError(message) from None


def engine_folder(options: SessionOptions, graph: GraphFile) -> Path:
    """Return the folder of a graph's TensorRT engines, which fit one graph, one kind of GPU and one precision."""
    found = gpus()
    gpu = f"{found[0].name}-{found[0].driver}".replace(" ", "-").replace("/", "-") if found else "unknown-gpu"
    name = f"{graph.digest[:16] or 'graph'}-{gpu}-{options.precision}"
    return (options.cache_dir or default_cache_dir()) / "tensorrt" / name


def parse_provider_options(pairs: Sequence[str]) -> dict[str, str]:
    """Read ``key=value`` pairs; one without key or "=", or a key that comes twice, is a DeviceError."""
    options: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not key or not equals:
            message = f"provider option {pair!r} is not key=value: write for example gpu_mem_limit=4294967296"
            raise DeviceError(message)
        if key in options:
            message = f"provider option {key} is given twice: keep one"
            raise DeviceError(message)
        options[key] = value
    return options


def _owner(key: str, chain: Sequence[str]) -> str:
    """Return the provider of a chain that an unlisted option is passed to."""
    return chain[0] if key.startswith("trt_") else chain[-1]


def _check_provider_options(chain: Sequence[str], given: Mapping[str, str]) -> None:
    """Refuse options that are known to belong to the provider of another device."""
    for key in given:
        owners = [provider for provider, known in KNOWN_OPTIONS.items() if key in known]
        if owners and not set(owners) & set(chain):
            device = next(device for device, providers in CHAIN_OF.items() if owners[0] in providers)
            message = f"{key} is an option of {owners[0]}, which does not run here: choose device {device}"
            raise DeviceError(message)


def _defaults(provider: str, options: SessionOptions, graph: GraphFile) -> dict[str, str]:
    if provider == CUDA_PROVIDER:
        return _cuda(options)
    if provider == TENSORRT_PROVIDER:
        return _tensorrt(options, graph)
    if provider == OPENVINO_PROVIDER:
        return _openvino(options)
    return {}


def _cuda(options: SessionOptions) -> dict[str, str]:
    latency = options.optimize_for == "latency"
    return {
        "device_id": "0",
        # One shape needs one block; with several batch sizes doubling extends less often.
        "arena_extend_strategy": "kSameAsRequested" if latency else "kNextPowerOfTwo",
        # An exhaustive search costs time at each new shape, and found nothing faster for the 1x1 convolutions of fp16.
        "cudnn_conv_algo_search": "HEURISTIC",
        # The Transposes around those convolutions cancel, and cuDNN adds the bias as it writes the product.
        "prefer_nhwc": "1",
        "fuse_conv_bias": "1",
        # fp32 means fp32: its tolerance is 1e-3 of a logit. fp16 products are not touched by it.
        "use_tf32": "0",
        # Before 1.28 the fused norm adds up in fp16 without it, and overflows on large channels; ignored since.
        "enable_skip_layer_norm_strict_mode": "1",
        "enable_cuda_graph": "1" if options.cuda_graph else "0",
    }


def _tensorrt(options: SessionOptions, graph: GraphFile) -> dict[str, str]:
    folder = str(engine_folder(options, graph))
    profiles = {
        f"trt_profile_{name}_shapes": ",".join(
            f"{tensor}:{'x'.join(str(axis if isinstance(axis, int) else axis[index]) for axis in shape)}"
            for tensor, shape in graph.shapes.items()
        )
        for index, name in enumerate(("min", "opt", "max"))
    }
    half = "1" if options.precision == "fp16" else "0"
    return {
        "trt_fp16_enable": half,
        # Older providers do not know this one.
        **({"trt_bf16_enable": "1"} if options.precision == "bf16" else {}),
        "trt_layer_norm_fp32_fallback": half,
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
        **(profiles if graph.shapes else {}),
    }


def _openvino(options: SessionOptions) -> dict[str, str]:
    kind = kind_of(options.device) or "CPU"
    # OpenVINO's own default is bf16 where the CPU has it: other numbers than the manifest's, without a word.
    config: dict[str, Any] = {"INFERENCE_PRECISION_HINT": openvino_hint(options), "PERFORMANCE_HINT": "LATENCY"}
    if kind == "CPU":
        config["INFERENCE_NUM_THREADS"] = options.threads or available_cpus()
    if folder := _openvino_cache(options):
        config["CACHE_DIR"] = str(folder)
    return {"load_config": json.dumps({kind: config})}


def openvino_hint(options: SessionOptions) -> str:
    """Return the arithmetic that OpenVINO is held to: what int8 leaves is computed in bf16 where the device has it.

    Raises:
        DeviceError: The device does not have it: OpenVINO would compute in fp32 without a word.
    """
    has = capabilities(options.device)
    if options.precision == "int8":
        return "bf16" if "BF16" in has else "f32"
    if has and options.precision != "fp32" and options.precision.upper() not in has:
        message = (
            f"device {options.device} has no {options.precision} here, OpenVINO would compute in fp32: "
            "choose precision fp32"
        )
        raise DeviceError(message)
    return OPENVINO_HINT[options.precision]


def _openvino_cache(options: SessionOptions) -> Path | None:
    """Return the folder of OpenVINO's compiled models, which only saves time; None where none can be written."""
    try:
        folder = (options.cache_dir or default_cache_dir()) / "openvino"
        folder.mkdir(parents=True, exist_ok=True)
    except (DeviceError, OSError):
        return None
    return folder if os.access(folder, os.W_OK) else None
