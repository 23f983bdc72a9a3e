"""``xclip-onnx index list``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from xclip_runtime.cli.index.options import index_option
from xclip_runtime.cli.options import json_option
from xclip_runtime.cli.results_file import json_line


@click.command("list")
@index_option
@json_option
def command(folder: str, as_json: bool) -> None:
    """List the videos of an index. With --json, one JSON document a line and video."""
    from xclip_runtime.cli.render import console  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.search.contact_sheet import clock  # noqa: PLC0415
    from xclip_runtime.search.store import Entry, Store  # noqa: PLC0415

    def document(entry: Entry) -> dict[str, Any]:
        return {
            "video": entry.source.path,
            "seconds": entry.seconds,
            "windows": entry.windows,
            "window": entry.source.window,
            "hop": entry.source.hop,
            "complete": entry.complete,
            "exists": Path(entry.source.path).exists(),
        }

    out = console()
    with Store.open(folder) as store:
        for entry in map(document, store.entries()):
            if as_json:
                click.echo(json_line(entry))
                continue
            notes = [
                "1 window" if entry["windows"] == 1 else f"{entry['windows']} windows",
                *([] if entry["complete"] else ["incomplete: add it again"]),
                *([] if entry["exists"] else ["the file is gone"]),
            ]
            out.print(f"{clock(entry['seconds']):>10}  {entry['video']}  {' · '.join(notes)}")
