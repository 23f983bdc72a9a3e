"""Command ``xclip-onnx index search``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json
from xclip_runtime.util.atomic import write_bytes
from xclip_runtime.util.plain_text import text_of

if TYPE_CHECKING:
    from xclip_runtime.search import Hit, SearchResult


@click.command("search")
@click.argument("text")
@opt.index_option
@opt.bundle_option
@opt.top_k_option(default=10, help="Number of hits to show, best first.")
@opt.option(
    "--shortlist",
    metavar="N",
    type=click.IntRange(1, 4096),
    show_default="100",
    help="Windows to score exactly, the nearest by cosine. More is slower and misses less.",
)
@opt.option("--exact", is_flag=True, help="Score every window of the index exactly.")
@opt.option("--per-video", metavar="N", type=opt.COUNT, show_default="any number", help="Maximum hits per video.")
@opt.option(
    "--contact-sheet", metavar="FILE", type=click.Path(dir_okay=False), help="Image of the hits to write, .png or .jpg."
)
@opt.json_option
@opt.model_options
def command(
    *,
    text: str,
    folder: str,
    bundle: str,
    top_k: int,
    shortlist: int | None,
    exact: bool,
    per_video: int | None,
    contact_sheet: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the windows that a text describes best.

    Of windows that overlap, the best is shown. Hits are ranked by the model's logit: cosine of video and text, with
    prompts from the video, times exp(logit_scale). No value of it says that something is present.
    """
    if exact and shortlist is not None:
        message = "--exact scores every window: leave out --shortlist"
        raise click.UsageError(message)
    opt.silence_native_logs()
    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.search.store import Store
    from xclip_runtime.search.video_index import SHORTLIST

    # Opened before the model, which takes longer to load.
    store = Store.open(folder)
    with VideoIndex(store, XClip(bundle, **options)) as index:
        result = index.search(text_of(text), top_k, shortlist=shortlist or SHORTLIST, exact=exact, per_video=per_video)
    if contact_sheet is not None:
        write_contact_sheet(contact_sheet, result)
    if as_json:
        print_json(result.to_dict())
    else:
        _print(result)


def write_contact_sheet(file: str, result: SearchResult) -> None:
    """Write the contact sheet of a result.

    Raises:
        click.UsageError: The suffix is not that of an image.
        OSError: The file cannot be written.
    """
    import cv2

    from xclip_runtime.search import contact_sheet

    if not cv2.haveImageWriter(file):
        message = f"{file} is not an image that can be written: choose a .png or .jpg"
        raise click.UsageError(message)
    _, image = cv2.imencode(Path(file).suffix, contact_sheet(result))
    write_bytes(Path(file), image.tobytes())


def _print(result: SearchResult) -> None:
    from xclip_runtime.cli.render import console, grid
    from xclip_runtime.search.contact_sheet import clock

    out = console()
    out.print(
        grid(
            (f"{number:3}", f"{hit.logit:7.2f}", f"{clock(hit.start)} - {clock(hit.end)}", _source(hit))
            for number, hit in enumerate(result.hits, start=1)
        )
    )
    scored = "all" if result.scored == result.windows else f"{result.scored} of {result.windows}"
    out.print(f"{scored} windows scored exactly · {result.timings_ms['total']:.0f} ms", style="dim")


def _source(hit: Hit) -> str:
    """Name the file of a hit, and below it the origin of its features where that is not the usual one."""
    name = _near(hit.video)
    return name if hit.encoding is None or hit.encoding.exact else f"{name}\n{hit.encoding}"


def _near(path: str) -> str:
    """Shorten a path below the working directory."""
    here = os.getcwd() + os.sep  # noqa: PTH109 - a string
    return path.removeprefix(here)
