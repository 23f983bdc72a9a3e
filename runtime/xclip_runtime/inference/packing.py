"""Pack a bundle for a device: the graphs that it runs, without those of other devices and precisions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xclip_runtime.bundle import TOKENIZER, Bundle
from xclip_runtime.bundle.writer import bundle_folder, write_manifest
from xclip_runtime.errors import BundleError, DeviceError, PrecisionUnavailableError
from xclip_runtime.inference.graphs import select_stream_graphs, select_vision_graph
from xclip_runtime.inference.providers import DEVICES

if TYPE_CHECKING:
    import os
    from collections.abc import Mapping, Sequence

    from xclip_runtime.bundle import GraphEntry
    from xclip_runtime.inference.providers import Compute, Device

PRECISIONS: Mapping[Device, tuple[Compute, ...]] = {
    "cpu": ("fp32", "int8"),
    "cuda": ("fp32", "fp16"),
    "tensorrt": ("fp32", "fp16", "bf16"),
    "openvino": ("fp32", "fp16", "bf16", "int8"),
}
"""Precisions in which a device runs a bundle that holds every graph."""


@dataclass(frozen=True)
class Packed:
    """Bundle that was packed."""

    bundle: Path
    graphs: tuple[str, ...]
    """Names of its graphs."""
    files: Mapping[str, int]
    """Size of every file in bytes, by its path in the bundle."""
    source_size: int
    """Size of the source's files in bytes."""

    @property
    def size(self) -> int:
        """Size of all files in bytes."""
        return sum(self.files.values())

    def to_dict(self) -> dict[str, Any]:
        """Return the ``pack --json`` document."""
        own = {"bundle": str(self.bundle), "graphs": list(self.graphs), "files": dict(self.files)}
        return {**own, "bytes": self.size, "source_bytes": self.source_size}


@dataclass(frozen=True)
class Support:
    """A device and precision, and the graph with which a bundle supports them."""

    device: Device
    precision: Compute
    graph: str | None
    """File of the vision graph; None if the bundle lacks it."""
    fix: str | None
    """Command that writes what is missing."""


def pack_bundle(
    bundle: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    devices: Sequence[Device] = ("cpu",),
    precision: Compute | None = None,
    text: bool = True,
    stream: bool = True,
    overwrite: bool = False,
) -> Packed:
    """Copy the files of a bundle that devices use in a precision, each checked, to a bundle of their own.

    The packed bundle gives the same results, and can itself be packed, pushed and served. From a model hub, only the
    files that are copied are downloaded.

    Args:
        bundle: As for `XClip`.
        output: Folder of the new bundle.
        devices: Devices that will run it: "cpu", "cuda", "tensorrt" or "openvino".
        precision: As for `XClip`; None takes the default of each device.
        text: Keep the text tower; without it, the bundle takes its own labels and encoded sets only.
        stream: Keep the graphs for streams that reuse frames, if there are any.
        overwrite: Replace an existing bundle.

    Raises:
        BundleError: The bundle is missing or damaged, lacks the precision for a device, or ``output`` exists or lies in
            it.
        DeviceError: There is no such device.
        HubError: A file cannot be downloaded.
        OutputLockedError: Another process is writing ``output``.
        OSError: The disk is full, or cannot be written.
    """
    source, target = Bundle.open(bundle, check_sizes=False), Path(output)
    graphs = _graphs_for(source, devices, precision, text=text, stream=stream)
    names = _files_of(source, graphs)
    if source.path.resolve() in target.resolve().parents:
        message = f"{target} lies in the bundle that is packed: choose a folder outside of it"
        raise BundleError(message)
    with bundle_folder(target, source=source.path, overwrite=overwrite) as folder:
        for name in names:
            _copy(source, name, folder)
        kept = {graph.name for graph in graphs}
        facts = dict(source.manifest)
        facts["graphs"] = {name: graph for name, graph in facts["graphs"].items() if name in kept}
        facts.setdefault("packed_from", source.digest)
        write_manifest(folder, facts)
    sizes = {entry.path: entry.size for entry in source.files}
    return Packed(target, tuple(facts["graphs"]), {name: sizes[name] for name in names}, sum(sizes.values()))


def supported(bundle: Bundle) -> tuple[Support, ...]:
    """List every device and precision with the graph that would run there, or the command that writes it."""
    return tuple(_support(bundle, device, precision) for device in DEVICES for precision in PRECISIONS[device])


def _support(bundle: Bundle, device: Device, precision: Compute) -> Support:
    try:
        return Support(device, precision, select_vision_graph(bundle, device, precision).file, None)
    except PrecisionUnavailableError:
        source = bundle.manifest["source"]
        checkpoint = source["checkpoint"] if source.get("revision") else "CHECKPOINT"
        graph = precision if precision == "int8" or device == "cuda" else "fp32"
        fix = f"xclip-onnx export {checkpoint} -o FOLDER --for {device} --precision {graph}"
        return Support(device, precision, None, fix)


def _graphs_for(
    bundle: Bundle, devices: Sequence[Device], precision: Compute | None, *, text: bool, stream: bool
) -> list[GraphEntry]:
    unknown = next((device for device in devices if device not in DEVICES), None)
    if unknown is not None or not devices:
        message = f"no device {unknown!r} to pack for: choose one of {', '.join(DEVICES)}"
        raise DeviceError(message)
    graphs = [bundle.graph("prompt", "fp32")]
    for device in devices:
        vision = select_vision_graph(bundle, device, precision)
        beside = select_stream_graphs(bundle, vision) if stream else ()
        graphs += [vision, *(beside if len(beside) == 2 else ())]
    if text and bundle.graphs_of("text"):
        graphs.append(bundle.text_graph)
    return graphs


def _files_of(bundle: Bundle, graphs: Sequence[GraphEntry]) -> list[str]:
    """Return the graphs' files and all that belongs to no graph, in the manifest's order."""
    used = {name for graph in graphs for name in (graph.file, *graph.data_files)}
    others = {name for graph in bundle.graphs for name in (graph.file, *graph.data_files)} - used
    if not any(graph.tower == "text" for graph in graphs):
        others.add(TOKENIZER)
    return [entry.path for entry in bundle.files if entry.path not in others]


def _copy(source: Bundle, name: str, folder: Path) -> None:
    """Copy a file that is as its manifest says."""
    path, copy = source.checked(name), folder / name
    copy.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copyfile(path, copy)
    except OSError as error:
        # The error names both files; a full disk is that of the copy.
        raise OSError(error.errno, error.strerror, str(copy)) from error
