"""``xclip-onnx info``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.bundle import Bundle
from xclip_runtime.cli.options import json_option, model_options
from xclip_runtime.errors import XClipError
from xclip_runtime.util.cpus import int8_is_fast

if TYPE_CHECKING:
    from collections.abc import Mapping


@click.command("info")
@click.argument("bundle", type=click.Path())
@json_option
@model_options
def command(bundle: str, as_json: bool, **model_options: Any) -> None:
    """Show what is inside BUNDLE, and what would be loaded on this machine."""
    opened = Bundle.open(bundle)
    loaded = _would_load(bundle, model_options)
    if as_json:
        click.echo(json.dumps({**opened.manifest, "would_load": loaded}, indent=2, ensure_ascii=False))
        return
    _print(opened, loaded)


def _would_load(bundle: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Load the model to see; an error is part of the answer."""
    from xclip_runtime.model import XClip  # noqa: PLC0415 - keeps --help quick

    try:
        return {**XClip(bundle, **options).info, "int8_is_fast": int8_is_fast()}
    except XClipError as error:
        return {"error": {"type": type(error).__name__, "message": str(error)}}


def _print(bundle: Bundle, loaded: Mapping[str, Any]) -> None:
    from rich.table import Table  # noqa: PLC0415

    from xclip_runtime.cli.render import console  # noqa: PLC0415

    out, manifest = console(), bundle.manifest
    source, model = manifest["source"], manifest["model"]
    out.print(str(bundle.path), style="bold")
    facts = Table.grid(padding=(0, 2))
    facts.add_row("source", f"{source['checkpoint']} {source['revision'] or ''}".strip())
    facts.add_row("licence", source["licence"] or "not stated by the checkpoint")
    facts.add_row("clip", f"{model['num_frames']} frames of {model['image_size']} x {model['image_size']}")
    facts.add_row("labels", _shorten(bundle.labels.names))
    facts.add_row("made with", ", ".join(f"{name} {version}" for name, version in manifest["tools"].items()))
    out.print(facts)
    graphs = Table("graph", "precision", "for", "MB", "max |Δlogit|", "cosine", box=None, pad_edge=False)
    sizes = {entry.path: entry.size for entry in bundle.files}
    for graph in bundle.graphs:
        size = sum(sizes[name] for name in (graph.file, *graph.data_files))
        error, cosine = graph.parity["max_abs_logit"], graph.parity["cosine"]
        graphs.add_row(graph.file, graph.precision, graph.target, f"{size / 1e6:.1f}", f"{error:.1e}", f"{cosine:.6f}")
    out.print(graphs)
    if "error" in loaded:
        out.print(f"Cannot be loaded here: {loaded['error']['message']}")
    else:
        out.print(
            f"Here: {loaded['vision_graph']} on {loaded['provider']}, {loaded['intra_op_threads']} threads, "
            f"preprocessing {loaded['profile']}"
        )
        if loaded["int8_is_fast"] is False:
            out.print("This CPU has no VNNI: int8 is not its fast path, fp32 may be as fast.")


def _shorten(names: tuple[str, ...], shown: int = 6) -> str:
    more = f", … ({len(names)} in all)" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
