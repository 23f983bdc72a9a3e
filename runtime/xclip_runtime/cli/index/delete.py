"""Command ``xclip-onnx index delete``."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.output import echo, print_error, print_json
from xclip_runtime.util.locks import locked


@click.command("delete")
@click.argument("videos", nargs=-1, metavar="[VIDEO...]")
@opt.option("--missing", is_flag=True, help="Delete all videos whose files no longer exist.")
@opt.index_option
@opt.json_option
def command(videos: tuple[str, ...], folder: str, missing: bool, as_json: bool) -> None:
    """Delete videos from an index; their files stay.

    VIDEO is a file or a folder as it was added; it need not exist any more.
    """
    if bool(videos) is missing:
        message = "give either VIDEO... or --missing"
        raise click.UsageError(message)
    from xclip_runtime.search.store import Store

    with Store.open(folder) as store, locked(folder, inside=True):
        if missing:
            found = {"": [e.source.path for e in store.entries() if not Path(e.source.path).exists()]}
        else:
            found = {name: store.under(name) for name in videos}
        deleted = sorted({path for paths in found.values() for path in paths})
        store.delete(deleted)
    unknown = [name for name, paths in found.items() if name and not paths]
    for name in unknown:
        print_error(f"{name} is not in the index: `xclip-onnx index list` shows its videos")
    if as_json:
        print_json({"deleted": deleted, "unknown": unknown}, indent=2)
    else:
        echo(f"{len(deleted)} deleted")
    sys.exit(exit_code(len(unknown), len(found)))
