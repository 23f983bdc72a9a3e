"""Command ``xclip-onnx index list``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.search.store import Entry


@click.command("list")
@opt.index_option
@opt.json_option
def command(folder: str, as_json: bool) -> None:
    """List the videos of an index.

    With --json, prints one JSON document per line and video.
    """
    from xclip_runtime.cli.render import console
    from xclip_runtime.search.contact_sheet import clock
    from xclip_runtime.search.store import Store

    out = console()
    with Store.open(folder) as store:
        for entry in store.entries():
            source, exists = entry.source, Path(entry.source.path).exists()
            if as_json:
                document = {
                    "video": source.path,
                    "seconds": entry.seconds,
                    "windows": entry.windows,
                    "window": source.window,
                    "hop": source.hop,
                    "complete": entry.complete,
                    "exists": exists,
                    "exact_windows": entry.exact_windows,
                    "new_frames": entry.new_frames,
                    "drift": entry.drift,
                }
                print_json(document)
                continue
            notes = [
                "1 window" if entry.windows == 1 else f"{entry.windows} windows",
                *_cached(entry),
                *([] if entry.complete else ["incomplete: add it again"]),
                *([] if exists else ["file is missing"]),
            ]
            out.print(f"{clock(entry.seconds):>10}  {source.path}  {' · '.join(notes)}")


def _cached(entry: Entry) -> Iterator[str]:
    """Yield a note on windows from cached frames, if there are any."""
    if entry.exact_windows is None or entry.exact_windows == entry.windows:
        return
    drift = "not measured" if entry.drift is None else f"up to {entry.drift:.2g}"
    yield f"{entry.windows - entry.exact_windows} cached, {entry.new_frames:.1f} new frames a window, drift {drift}"
