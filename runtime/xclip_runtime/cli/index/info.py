"""Command ``xclip-onnx index info``."""

from __future__ import annotations

from dataclasses import asdict

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_json


@click.command("info")
@opt.index_option
@opt.json_option
def command(folder: str, as_json: bool) -> None:
    """Show the size of an index, and the model that made it."""
    from xclip_runtime.search.store import Store

    with Store.open(folder) as store:
        entries = list(store.entries())
        windows = len(store)
    # Measured once it is closed: an open one has a journal.
    size = store.bytes_on_disk
    document = {
        "index": folder,
        "videos": len(entries),
        "incomplete": sum(not entry.complete for entry in entries),
        "windows": windows,
        "seconds": sum(entry.seconds for entry in entries),
        "bytes": size,
        "bytes_per_window": size / windows if windows else None,
        "features": store.description.features,
        "reuse": store.description.reuse,
        "model": asdict(store.description.model),
    }
    if as_json:
        print_json(document, indent=2)
        return
    model = store.description.model
    each = f", {size / windows / 1e3:.0f} kB per window" if windows else ""
    echo(f"videos      {len(entries)} ({document['incomplete']} incomplete), {windows} windows")
    echo(f"on disk     {size / 1e6:.1f} MB{each}, features in {store.description.features}")
    if store.description.reuse:
        echo("computed    from cached frames, an approximation")
    echo(f"model       {model.checkpoint}, {model.precision}, profile {model.profile}")
    echo(f"graphs      vision {model.vision[:12]} · prompt {model.prompt[:12]} · text {model.text[:12]}")
