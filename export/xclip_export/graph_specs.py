"""Graphs that an export can write, by precision and device."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from xclip_runtime.bundle import Bundle
from xclip_runtime.errors import PrecisionUnavailableError
from xclip_runtime.inference.graphs import select_vision_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from xclip_export.parity import Parity
    from xclip_runtime.bundle import Precision, Target, Tower
    from xclip_runtime.inference.providers import Device


@dataclass(frozen=True)
class GraphSpec:
    """Graph that an export can write."""

    name: str
    tower: Tower
    precision: Precision
    target: Target


TEXT_GRAPH = GraphSpec("text_model", "text", "fp32", "any")
PROMPT_GRAPH = GraphSpec("prompt_model", "prompt", "fp32", "any")
INT8_GRAPH = GraphSpec("vision_model_int8", "vision", "int8", "cpu")
QDQ_GRAPH = GraphSpec("vision_model_qdq", "vision", "int8", "any")
VISION_GRAPHS = (
    GraphSpec("vision_model", "vision", "fp32", "any"),
    GraphSpec("vision_model_cpu", "vision", "fp32", "cpu"),
    GraphSpec("vision_model_fp16", "vision", "fp16", "cuda"),
    INT8_GRAPH,
    QDQ_GRAPH,
)
HEAD_GRAPH = GraphSpec("head_model", "head", "fp32", "any")
FUSED = "vision_model_cpu"
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "int8")


@dataclass(frozen=True)
class WrittenGraph:
    """Graph in the bundle with its parity."""

    spec: GraphSpec
    path: Path
    data_files: tuple[Path, ...]
    parity: Parity


def vision_graphs(
    precisions: Sequence[Precision], devices: Sequence[Device] = (), *, fused: bool = True
) -> tuple[GraphSpec, ...]:
    """Return the vision graphs of an export: for devices, those that they would choose from a bundle of all.

    Raises:
        PrecisionUnavailableError: No device runs one of the precisions.
    """
    held = [graph for graph in VISION_GRAPHS if fused or graph.name != FUSED]
    if not devices:
        return tuple(graph for graph in held if graph.precision in {"fp32", *precisions})
    everything = Bundle(Path(), {"graphs": {graph.name: {**asdict(graph), "file": "", "parity": {}} for graph in held}})
    chosen: set[str] = set()
    for precision in precisions:
        found = set()
        for device in devices:
            with suppress(PrecisionUnavailableError):
                found.add(select_vision_graph(everything, device, precision).name)
        if not found:
            message = f"{precision} runs on none of {', '.join(devices)}: leave it out, or name another device"
            raise PrecisionUnavailableError(message)
        chosen |= found
    return tuple(graph for graph in held if graph.name in chosen)
