"""Command ``xclip-onnx info``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.bundle import Bundle
from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json
from xclip_runtime.errors import XClipError
from xclip_runtime.util.cpus import int8_is_fast

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from xclip_runtime.inference.packing import Support


@click.command("info")
@opt.bundle_alias
@opt.bundle_option
@opt.json_option
@opt.model_options
def command(bundle: str, as_json: bool, **options: Any) -> None:
    """Show a bundle's content and how it would be loaded here.

    A table lists each device and precision with the graph that would run there, or with the command that writes it.
    """
    from xclip_runtime.inference.packing import supported

    opened = Bundle.open(bundle)
    loaded = _would_load(bundle, options)
    if as_json:
        supports = [asdict(each) for each in supported(opened)]
        print_json({**opened.manifest, "supported": supports, "would_load": loaded}, indent=2)
    else:
        _print(opened, loaded)


def _would_load(bundle: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Load the model; an error is part of the answer."""
    from xclip_runtime.model import XClip

    try:
        return {**XClip(bundle, **options).info, "int8_is_fast": int8_is_fast()}
    except XClipError as error:
        return {"error": error.to_dict()}


def _print(bundle: Bundle, loaded: Mapping[str, Any]) -> None:
    from xclip_runtime.cli.render import console, grid, table
    from xclip_runtime.inference.packing import supported

    out, manifest = console(), bundle.manifest
    source, model = manifest["source"], manifest["model"]
    facts = {
        "source": f"{source['checkpoint']} {source.get('revision') or ''}".strip(),
        "licence": source.get("licence") or "not stated by the checkpoint",
        "clip": f"{model['num_frames']} frames of {model['image_size']} x {model['image_size']}",
        "labels": _shorten(bundle.labels.names),
        "text": "any labels and texts" if bundle.graphs_of("text") else "its own labels, and encoded sets",
        "made with": ", ".join(f"{name} {version}" for name, version in manifest["tools"].items()),
    }
    sizes = {entry.path: entry.size for entry in bundle.files}
    rows = [
        (
            *(graph.file, graph.precision, graph.target),
            f"{sum(sizes[name] for name in (graph.file, *graph.data_files)) / 1e6:.1f}",
            f"{graph.parity['max_abs_logit']:.1e}",
            f"{graph.parity['cosine']:.6f}",
        )
        for graph in bundle.graphs
    ]
    out.print(str(bundle.path), style="bold")
    out.print(grid(facts.items()))
    out.print(table(("graph", "precision", "for", "MB", "max |Δlogit|", "cosine"), rows))
    out.print(table(("device", "precision", "graph, or what writes it"), _support_rows(supported(bundle))))
    if "error" in loaded:
        out.print(f"Cannot be loaded here: {loaded['error']['message']}")
    else:
        out.print(
            f"Here: {loaded['vision_graph']} on {loaded['provider']}, {loaded['threads']} threads, "
            f"preprocessing {loaded['profile']}; chosen: {loaded['chosen']}"
        )
        if loaded["chosen"] == "the default":
            out.print("`xclip-onnx tune` measures what else this machine and bundle have, for --device auto.")
        if loaded["int8_is_fast"] is False:
            out.print("This CPU has no VNNI: int8 is not its fast path, fp32 may be as fast.")


def _support_rows(supports: Sequence[Support]) -> list[tuple[str, str, str]]:
    """Return a row for each device and graph, and one for all that a device lacks, with their precisions."""
    found: dict[tuple[str, str | None], list[Support]] = {}
    for each in supports:
        found.setdefault((each.device, each.graph), []).append(each)
    return [
        (device, ", ".join(each.precision for each in group), graph or f"missing: {_fix(group)}")
        for (device, graph), group in found.items()
    ]


def _fix(missing: Sequence[Support]) -> str:
    """Join commands that differ in their last word, the precision of a graph; `export` takes several."""
    command, *others = dict.fromkeys(each.fix or "" for each in missing)
    return " ".join([command, *(other.rpartition(" ")[2] for other in others)])


def _shorten(names: tuple[str, ...], shown: int = 6) -> str:
    more = f", … ({len(names)} in all)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
