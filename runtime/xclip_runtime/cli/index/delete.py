"""``xclip-onnx index delete``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from xclip_runtime.cli.classify import exit_code
from xclip_runtime.cli.index.options import index_option
from xclip_runtime.cli.options import json_option


@click.command("delete")
@click.argument("videos", nargs=-1, metavar="[VIDEO...]")
@click.option("--missing", is_flag=True, help="Delete all videos whose files are gone.")
@index_option
@json_option
def command(videos: tuple[str, ...], folder: str, missing: bool, as_json: bool) -> None:
    """Delete each VIDEO from an index; the file itself stays.

    VIDEO is a file or a folder as it was added, whether it is still there or not.
    """
    if bool(videos) is missing:
        message = "name what to delete: VIDEO... or --missing"
        raise click.UsageError(message)
    from xclip_runtime.search.store import Store  # noqa: PLC0415 - keeps --help quick

    with Store.open(folder) as store:
        if missing:
            found = {"": [e.source.path for e in store.entries() if not Path(e.source.path).exists()]}
        else:
            found = {name: store.under(name) for name in videos}
        deleted = sorted({path for paths in found.values() for path in paths})
        store.delete(deleted)
    unknown = [name for name, paths in found.items() if name and not paths]
    for name in unknown:
        click.echo(f"xclip-onnx: {name} is not in the index: `xclip-onnx index list` shows what is", err=True)
    if as_json:
        click.echo(json.dumps({"deleted": deleted, "unknown": unknown}, indent=2))
    else:
        click.echo(f"{len(deleted)} deleted")
    sys.exit(exit_code(len(unknown), len(found)))
