"""``xclip-onnx index info``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from xclip_runtime.cli.index.options import index_option
from xclip_runtime.cli.options import json_option


@click.command("info")
@index_option
@json_option
def command(folder: str, as_json: bool) -> None:
    """Say what is in an index, how large it is, and which model made it."""
    from xclip_runtime.search.store import Store  # noqa: PLC0415 - keeps --help quick

    with Store.open(folder) as store:
        entries = list(store.entries())
        windows = len(store)
    # Closed, for an open one has a journal.
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
        "model": asdict(store.description.model),
    }
    if as_json:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        return
    model = store.description.model
    each = f", {size / windows / 1e3:.0f} kB a window" if windows else ""
    click.echo(f"videos      {len(entries)} ({document['incomplete']} incomplete), {windows} windows")
    click.echo(f"on the disk {size / 1e6:.1f} MB{each}, features in {store.description.features}")
    click.echo(f"model       {model.checkpoint}, {model.precision}, profile {model.profile}")
    click.echo(f"graphs      vision {model.vision[:12]} · prompt {model.prompt[:12]} · text {model.text[:12]}")
