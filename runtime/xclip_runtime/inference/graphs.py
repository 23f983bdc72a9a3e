"""Selection of a bundle's graphs for a device, and the sessions that run them."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from xclip_runtime.errors import DeviceError, PrecisionUnavailableError, XClipError
from xclip_runtime.inference.auto import MAX_LOGIT_ERROR, Pick, picks
from xclip_runtime.inference.cached_frames import CachedTower
from xclip_runtime.inference.plugins import ep_devices, plugin_of
from xclip_runtime.inference.providers import (
    CUDA_PROVIDER,
    candidate_devices,
    device_of,
    options_for,
    unknown_options,
)
from xclip_runtime.inference.session import Session, check_providers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xclip_runtime.bundle import Bundle, GraphEntry, Precision, Target
    from xclip_runtime.inference.providers import Compute, DeviceChoice, ProviderSpec, SessionDevice, SessionOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """The sessions of a model, with the vision graph's entry in the manifest and the precision that it computes in."""

    graph: GraphEntry
    vision: Session
    prompt: Session
    precision: Compute
    reason: str = "named"
    """Reason for the device: "named", or that of device "auto"."""


def load(
    bundle: Bundle,
    choice: DeviceChoice,
    precision: Compute | None,
    options_of: Callable[[SessionDevice], SessionOptions],
    providers: Sequence[ProviderSpec] = (),
    *,
    max_logit_error: float = MAX_LOGIT_ERROR,
) -> Loaded:
    """Load a bundle on the chosen device, or with "auto" on the first device that works.

    ``options_of`` makes the session options for a device; the user's own ``providers`` take the place of a device.
    Where "auto" comes to the CPU and no precision is named, it takes the fastest setting within ``max_logit_error``.

    Raises:
        BundleError: A file is missing or changed, or there is no graph of that precision for the device.
        DeviceError: The device cannot run here.
        MissingExtraError: ONNX Runtime is not installed.
    """
    if providers:
        return _load_on(bundle, options_of(device_of(providers[0][0])), precision)
    if choice != "auto":
        return _load_on(bundle, options_of(*candidate_devices(choice)), precision)
    threads = options_of("cpu").threads
    gpus = [Pick(device, precision, threads, "the first that works") for device in candidate_devices("auto")[:-1]]
    for pick in (*gpus, *(picks(bundle, max_logit_error, threads) if precision is None else ())):
        try:
            options = replace(options_of(pick.device), threads=threads or pick.threads)
            loaded = _load_on(bundle, options, pick.precision)
        except (DeviceError, PrecisionUnavailableError) as error:
            logger.warning("device auto does not use %s: %s", pick.device, error)
        else:
            # Other numbers than those of fp32 are never a surprise.
            level = logging.INFO if pick.precision in (precision, "fp32") else logging.WARNING
            logger.log(level, "device auto takes %s %s: %s", pick.device, loaded.precision, pick.reason)
            return replace(loaded, reason=pick.reason)
    return replace(_load_on(bundle, options_of(_default_device(bundle, precision)), precision), reason="the default")


def _default_device(bundle: Bundle, precision: Compute | None) -> SessionDevice:
    """Return "cpu", or "openvino" where it is here and the bundle holds graphs for it alone."""
    with suppress(PrecisionUnavailableError):
        select_vision_graph(bundle, "cpu", precision)
        return "cpu"
    with suppress(XClipError):
        select_vision_graph(bundle, "openvino", precision)
        ep_devices("openvino")
        return "openvino"
    return "cpu"


def select_vision_graph(bundle: Bundle, device: SessionDevice, precision: Compute | None) -> GraphEntry:
    """Return the vision graph that a device should run.

    Precision None takes fp16 on CUDA if there is one, else fp32; int8 only from a bundle that holds no other.
    TensorRT and OpenVINO compute the portable fp32 graph in the requested precision; int8 has a portable graph of its
    own, beside that for the CPU.

    Raises:
        PrecisionUnavailableError: The bundle holds no graph of that precision for that device.
    """
    target: Target = {"cpu": "cpu", "cuda": "cuda"}.get(device, "any")  # type: ignore[assignment]
    precision = precision or _default_precision(bundle, device, target)
    compiles = device == "tensorrt" or plugin_of(device) is not None
    if compiles and precision in ("fp16", "bf16"):
        return bundle.graph("vision", "fp32")
    if precision == "int8":
        return _select_int8_graph(bundle, device)
    if precision == "bf16":
        message = f"device {device} does not compute in bf16: choose fp32, fp16 or int8, or device openvino or tensorrt"
        raise PrecisionUnavailableError(message)
    return bundle.graph("vision", precision, target)


def _select_int8_graph(bundle: Bundle, device: SessionDevice) -> GraphEntry:
    """Return the int8 graph of the CPU for device cpu, and the portable one for engines with int8 kernels."""
    if device == "cuda":
        message = "device cuda does not compute in int8: choose fp16 or fp32, or device cpu or openvino"
        raise PrecisionUnavailableError(message)
    if device == "tensorrt":
        message = (
            "TensorRT takes symmetric int8 only, and the int8 graph has zero points: choose fp16, bf16 or fp32, "
            "or device cpu or openvino"
        )
        raise PrecisionUnavailableError(message)
    target: Target = "cpu" if device == "cpu" else "any"
    found = {graph.target: graph for graph in bundle.graphs_of("vision") if graph.precision == "int8"}
    if found and target not in found:
        other = "cpu" if target == "any" else "openvino"
        message = (
            f"{bundle.path} holds its int8 graph for device {other} only, not for {device}: choose device {other}, "
            "or export it again with --precision int8"
        )
        raise PrecisionUnavailableError(message)
    return bundle.graph("vision", "int8", target)


def _default_precision(bundle: Bundle, device: SessionDevice, target: Target) -> Precision:
    held = {g.precision for g in bundle.graphs_of("vision") if g.target in (target, "any")}
    preferred: tuple[Precision, ...] = ("fp16", "fp32", "int8") if device == "cuda" else ("fp32", "int8")
    return next((precision for precision in preferred if precision in held), "fp32")


def select_stream_graphs(bundle: Bundle, vision: GraphEntry) -> tuple[GraphEntry, ...]:
    """Return the stream graph beside a vision graph, and the head graph; fewer where the bundle lacks them."""
    wanted = ("stream", vision.precision, vision.target), ("head", "fp32", "any")
    found = (next((g for g in bundle.graphs if (g.tower, g.precision, g.target) == facts), None) for facts in wanted)
    return tuple(graph for graph in found if graph is not None)


def load_cached_tower(bundle: Bundle, loaded: Loaded) -> CachedTower:
    """Load the stream graph beside a vision graph, and the head graph.

    Raises:
        BundleError: The bundle has none for that vision graph, or a file is changed.
        DeviceError: The device cannot run them.
    """
    found = select_stream_graphs(bundle, loaded.graph)
    if len(found) < 2:
        message = (
            f"{bundle.path} has no stream graph beside {loaded.graph.name}: export it again with --stream, "
            "or pack it without --no-stream"
        )
        raise PrecisionUnavailableError(message)
    options = _prompt_options(loaded.vision.options) if loaded.vision.options.device == "tensorrt" else None
    sessions = [
        Session(bundle.checked_graph(g), options or own)
        for g, own in zip(found, (loaded.vision.options, loaded.prompt.options), strict=True)
    ]
    return CachedTower(sessions[0], sessions[1], bundle.num_frames)


def _load_on(bundle: Bundle, options: SessionOptions, precision: Compute | None) -> Loaded:
    graph = select_vision_graph(bundle, options.device, precision)
    computed = precision or graph.precision
    options = replace(options, precision=computed)
    for line in unknown_options(options):
        logger.warning("provider option %s", line)
    check_providers(options)  # before a graph is downloaded that could not run
    size, most = bundle.image_size, options.max_batch
    shapes = {"pixel_values": ((1, most, most), bundle.num_frames, size, size, 3)}
    vision = Session(bundle.checked_graph(graph), options, shapes)
    prompt = Session(bundle.checked_graph(bundle.graph("prompt", "fp32")), _prompt_options(options))
    return Loaded(graph, vision, prompt, computed)


def _prompt_options(options: SessionOptions) -> SessionOptions:
    """Return the prompt graph's options: fp32, since fp16 saves next to nothing and takes a quarter of the tolerance.

    Beside TensorRT it runs on CUDA, which needs no engine for each number of labels.
    """
    options = replace(options, precision="fp32")
    if options.device != "tensorrt":
        return options
    own = options_for(CUDA_PROVIDER, options)
    return replace(options, device="cuda", provider_options={"enable_cuda_graph": "0", **own})
