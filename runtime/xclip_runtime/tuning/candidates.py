"""Candidates of a tuning: the settings that this machine and the bundle have."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

from xclip_runtime.errors import PrecisionUnavailableError, XClipError
from xclip_runtime.inference.graphs import select_vision_graph
from xclip_runtime.inference.plugins import OPENVINO_DEVICES, PREFIX, available_providers, ep_devices, plugin_devices
from xclip_runtime.inference.providers import PROVIDER_OF, Compute

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from xclip_runtime.bundle import Bundle, GraphEntry
    from xclip_runtime.inference.providers import SessionDevice

logger = logging.getLogger(__name__)

CPU_DEVICES = ("cpu", "openvino")
"""Devices that compute on the CPU, so that their threads matter."""

SESSION_BYTES = 400 << 20
"""Memory of a process beside the weights: libraries, activations of a clip, calibration clips."""
WEIGHT_COPIES = 2.2
"""Weights while a session is made, in multiples of the files: mapped, and packed for the kernels."""


@dataclass(frozen=True)
class Candidate:
    """Setting of the vision graph to measure."""

    device: SessionDevice
    precision: Compute
    threads: int | None
    graph: GraphEntry
    memory: int
    """Estimated memory of its process, bytes."""

    def __str__(self) -> str:
        threads = "" if self.threads is None else f", {self.threads} threads"
        return f"{self.device} {self.precision}{threads}"


def installed_devices() -> tuple[SessionDevice, ...]:
    """Return the devices whose execution providers are installed and find their processor; the CPU first."""
    providers, plugins = available_providers(), plugin_devices()
    built_in = [device for device in ("cpu", "cuda", "tensorrt") if PROVIDER_OF[device] in providers]
    others = OPENVINO_DEVICES[1:] if "openvino" in plugins else ()
    return (*built_in, *(device for device in (*plugins, *others) if _is_here(device)))


def _is_here(device: SessionDevice) -> bool:
    if device.startswith(PREFIX):
        return True  # registered in the candidate's process alone, which it may abort
    try:
        return bool(ep_devices(device))
    except XClipError as error:
        if device == "openvino":
            logger.warning("left out: %s", error)
        return False


def candidates(bundle: Bundle, devices: Iterable[SessionDevice], cpus: int) -> tuple[Candidate, ...]:
    """List the candidates: fp32 on the CPU with all CPUs first, if the bundle has it, and fewer threads last."""
    found = [
        (rank, Candidate(device, precision, threads, graph, _memory(bundle, graph)))
        for device in devices
        for precision, graph in _graphs(bundle, device)
        for rank, threads in enumerate(_threads(device, cpus))
    ]
    return tuple(candidate for _, candidate in sorted(found, key=lambda pair: pair[0]))


def _graphs(bundle: Bundle, device: SessionDevice) -> Iterator[tuple[Compute, GraphEntry]]:
    """Yield the precisions that a device offers of a bundle, with their graphs."""
    for precision in get_args(Compute):
        if precision == "fp16" and device == "openvino":
            continue  # CPUs compute it in fp32
        if precision in ("fp16", "bf16") and device.startswith(PREFIX):
            continue  # nothing tells such a plugin
        try:
            yield precision, select_vision_graph(bundle, device, precision)
        except PrecisionUnavailableError:
            continue


def _threads(device: SessionDevice, cpus: int) -> tuple[int | None, ...]:
    """Return all CPUs, a half and a quarter: two threads on one core often gain nothing."""
    if device not in CPU_DEVICES:
        return (None,)
    return tuple(dict.fromkeys(max(1, cpus // share) for share in (1, 2, 4)))


def _memory(bundle: Bundle, graph: GraphEntry) -> int:
    sizes = {entry.path: entry.size for entry in bundle.files}
    return SESSION_BYTES + round(WEIGHT_COPIES * sum(sizes[name] for name in (graph.file, *graph.data_files)))
