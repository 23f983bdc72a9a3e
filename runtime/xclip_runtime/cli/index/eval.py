"""``xclip-onnx index eval``."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.index.add import add
from xclip_runtime.cli.options import bundle_option, json_option, model_options, silence_native_logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.search import Added, VideoIndex
    from xclip_runtime.search.retrieval import Retrieval
    from xclip_runtime.search.video_index import Note


@click.command("eval")
@click.argument("captions", type=click.Path(dir_okay=False), metavar="CAPTIONS.csv")
@bundle_option
@click.option(
    "--videos",
    "root",
    type=click.Path(file_okay=False),
    help="Folder that the names of videos start from. Default: the one that CAPTIONS.csv is in.",
)
@click.option(
    "--index",
    "-i",
    "folder",
    type=click.Path(file_okay=False),
    help="Keep the videos in this index, and take from it those that are in it. Default: a temporary one.",
)
@json_option
@model_options
def command(captions: str, bundle: str, root: str | None, folder: str | None, as_json: bool, **options: Any) -> None:
    """Measure how well texts find their videos, and videos their texts: recall at 1, 5 and 10, and the median rank.

    CAPTIONS.csv has the columns video and caption, a line a caption. A video may have several, and several videos the
    same one: then any of them is right. Every pair is scored exactly.
    """
    silence_native_logs()
    from xclip_runtime.model import XClip  # noqa: PLC0415
    from xclip_runtime.search import VideoIndex  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.search.captions import read_captions  # noqa: PLC0415
    from xclip_runtime.search.retrieval import evaluate  # noqa: PLC0415

    pairs = read_captions(captions, root)
    names = list(dict.fromkeys(pair.video for pair in pairs))
    model = XClip(bundle, **options)
    with ExitStack() as stack:
        place = folder or stack.enter_context(tempfile.TemporaryDirectory())
        index = stack.enter_context(VideoIndex.create(place, model))
        added = add(names, lambda note: _add_as_held(index, names, note), as_json=False)
        failed = [one for one in added if one.error is not None]
        bad = {one.video for one in failed}
        kept = [pair for pair in pairs if pair.video not in bad]
        if not kept:
            click.echo("xclip-onnx: no video of the captions can be read: check their names and --videos", err=True)
            sys.exit(2)
        result = evaluate(index, kept)
    errors = [one.to_dict() for one in failed]
    if as_json:
        facts = {"precision": model.precision, "profile": model.transform.profile, "errors": errors}
        click.echo(json.dumps({**result.to_dict(), **facts}, indent=2, ensure_ascii=False))
    else:
        _print(result)
    sys.exit(1 if errors else 0)


def _add_as_held(index: VideoIndex, names: list[str], note: Note) -> Iterator[Added]:
    """Bring the index up to date with the files, each cut as it is in there; new ones are taken as a whole."""
    from xclip_runtime.search.store import absolute  # noqa: PLC0415 - keeps --help quick

    by_cut: dict[tuple[float | None, float | None], list[str]] = {}
    for name in names:
        entry = index.store.entry(absolute(name))
        cut = (entry.source.window, entry.source.hop) if entry else (None, None)
        by_cut.setdefault(cut, []).append(name)
    for (window, hop), group in by_cut.items():
        yield from index.add(group, window=window, hop=hop, on_window=note)


def _print(result: Retrieval) -> None:
    from rich.table import Table  # noqa: PLC0415 - keeps --help quick

    from xclip_runtime.cli.render import console  # noqa: PLC0415

    table = Table.grid(padding=(0, 3))
    table.add_row("", "R@1", "R@5", "R@10", "median rank")
    for name, recall in (
        ("text to video", result.prompted.text_to_video),
        ("video to text", result.prompted.video_to_text),
        ("text to video, cosine alone", result.cosine.text_to_video),
        ("video to text, cosine alone", result.cosine.video_to_text),
    ):
        table.add_row(
            name, *(f"{share:.1%}" for share in (recall.r1, recall.r5, recall.r10)), f"{recall.median_rank:g}"
        )
    out = console()
    out.print(f"{result.texts} texts, {result.videos} videos")
    out.print(table)
