"""Command ``xclip-onnx index eval``."""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.index.add import add
from xclip_runtime.cli.output import print_error, print_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from xclip_runtime.search import Added, VideoIndex
    from xclip_runtime.search.retrieval import Retrieval
    from xclip_runtime.search.video_index import Note


@click.command("eval")
@click.argument("captions", type=click.Path(dir_okay=False), metavar="CAPTIONS.csv")
@opt.bundle_option
@opt.option(
    "--videos",
    "root",
    metavar="FOLDER",
    type=click.Path(file_okay=False),
    show_default="the folder of CAPTIONS.csv",
    help="Folder that the names of videos are relative to.",
)
@opt.optional_index_option(
    show_default="a temporary one", help="Index that keeps the videos; unchanged ones are not read again."
)
@opt.json_option
@opt.model_options
def command(captions: str, bundle: str, root: str | None, folder: str | None, as_json: bool, **options: Any) -> None:
    """Measure retrieval: recall at 1, 5 and 10, and median rank.

    CAPTIONS.csv has the columns video and caption, one caption per line. A video may have several captions, and a
    caption several videos: then any of them is right. Every pair is scored exactly.
    """
    opt.silence_native_logs()
    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex
    from xclip_runtime.search.captions import read_captions
    from xclip_runtime.search.retrieval import evaluate

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
            print_error("no video of the captions can be read: check their names and --videos")
            sys.exit(2)
        result = evaluate(index, kept)
    errors = [one.to_dict() for one in failed]
    if as_json:
        facts = {"precision": model.precision, "profile": model.transform.profile, "errors": errors}
        print_json({**result.to_dict(), **facts}, indent=2)
    else:
        _print(result)
    sys.exit(1 if errors else 0)


def _add_as_held(index: VideoIndex, names: list[str], note: Note) -> Iterator[Added]:
    """Update the index, each video in the windows that it has there; new ones are added as a whole."""
    from xclip_runtime.search.store import absolute

    by_cut: dict[tuple[float | None, float | None], list[str]] = {}
    for name in names:
        entry = index.store.entry(absolute(name))
        cut = (entry.source.window, entry.source.hop) if entry else (None, None)
        by_cut.setdefault(cut, []).append(name)
    for (window, hop), group in by_cut.items():
        yield from index.add(group, window=window, hop=hop, on_window=note)


def _print(result: Retrieval) -> None:
    from xclip_runtime.cli.render import console, table

    rows = [
        (name, *(f"{share:.1%}" for share in (recall.r1, recall.r5, recall.r10)), f"{recall.median_rank:g}")
        for name, recall in (
            ("text to video", result.prompted.text_to_video),
            ("video to text", result.prompted.video_to_text),
            ("text to video, cosine alone", result.cosine.text_to_video),
            ("video to text, cosine alone", result.cosine.video_to_text),
        )
    ]
    out = console()
    out.print(f"{result.texts} texts, {result.videos} videos")
    out.print(table(("", "R@1", "R@5", "R@10", "median rank"), rows))
