"""``xclip-onnx index search``."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.index.options import index_option
from xclip_runtime.cli.options import bundle_option, json_option, model_options, silence_native_logs
from xclip_runtime.cli.results_file import json_line

if TYPE_CHECKING:
    from xclip_runtime.search import SearchResult


@click.command("search")
@click.argument("text")
@index_option
@bundle_option
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Moments to show, best first.")
@click.option(
    "--shortlist",
    type=click.IntRange(1, 4096),
    help="Windows that are scored exactly, those nearest by cosine. Default: 100; more is slower and misses less.",
)
@click.option("--exact", is_flag=True, help="Score every window of the index exactly.")
@click.option("--per-video", type=click.IntRange(1), help="At most so many moments of one video. Default: any number.")
@click.option(
    "--contact-sheet",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Draw frames of the moments with their scores: a .png or .jpg.",
)
@json_option
@model_options
def command(
    *,
    text: str,
    folder: str,
    bundle: str,
    k: int,
    shortlist: int | None,
    exact: bool,
    per_video: int | None,
    contact_sheet: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find the moments that TEXT describes best, with the words that the model was trained on.

    Windows that overlap a better one are left out. The score is the model's own logit: cosine of video and text, with
    prompts from the video, times exp(logit_scale). It ranks moments; no value of it says that something is there.
    """
    if exact and shortlist is not None:
        message = "--exact scores everything: leave out --shortlist"
        raise click.UsageError(message)
    silence_native_logs()
    from xclip_runtime.model import XClip  # noqa: PLC0415
    from xclip_runtime.search import VideoIndex  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.search.store import Store  # noqa: PLC0415
    from xclip_runtime.search.video_index import SHORTLIST  # noqa: PLC0415

    # Before the model, which takes longer to load.
    store = Store.open(folder)
    with VideoIndex(store, XClip(bundle, **options)) as index:
        result = index.search(text, k, shortlist=shortlist or SHORTLIST, exact=exact, per_video=per_video)
    if contact_sheet is not None:
        write_contact_sheet(contact_sheet, result)
    if as_json:
        click.echo(json_line(result.to_dict()))
    else:
        _print(result)


def write_contact_sheet(file: str, result: SearchResult) -> None:
    """Draw it into a picture file.

    Raises:
        click.ClickException: The file cannot be written.
    """
    import cv2  # noqa: PLC0415 - keeps --help quick

    from xclip_runtime.search import contact_sheet  # noqa: PLC0415

    if not cv2.haveImageWriter(file):
        message = f"{file} is no kind of picture that can be written: name a .png or a .jpg"
        raise click.UsageError(message)
    if not cv2.imwrite(file, contact_sheet(result)):
        message = f"{file} cannot be written: check that its folder is there"
        raise OSError(message)


def _print(result: SearchResult) -> None:
    from rich.table import Table  # noqa: PLC0415 - keeps --help quick

    from xclip_runtime.cli.render import console  # noqa: PLC0415
    from xclip_runtime.search.contact_sheet import clock  # noqa: PLC0415

    out = console()
    table = Table.grid(padding=(0, 2))
    for number, hit in enumerate(result.hits, start=1):
        table.add_row(f"{number:3}", f"{hit.logit:7.2f}", f"{clock(hit.start)} - {clock(hit.end)}", _near(hit.video))
    out.print(table)
    scored = "all" if result.scored == result.windows else f"{result.scored} of {result.windows}"
    out.print(f"{scored} windows scored exactly · {result.timings_ms['total']:.0f} ms", style="dim")


def _near(path: str) -> str:
    """A path as seen from here, where it lies below."""
    here = os.getcwd() + os.sep  # noqa: PTH109 - a string
    return path.removeprefix(here)
