"""Command ``xclip-onnx score``."""

from __future__ import annotations

from typing import Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import print_json
from xclip_runtime.util.plain_text import text_of


@click.command("score")
@click.argument("video")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@opt.bundle_option
@opt.truncate_option
@opt.json_option
@opt.reading_options
@opt.model_options
def command(*, video: str, texts: tuple[str, ...], bundle: str, truncate: bool, as_json: bool, **options: Any) -> None:
    """Score how well texts describe a video (extra [text]).

    Cosine and logit are comparable between videos; the probability is a softmax over the given texts.
    """
    opt.silence_native_logs()
    reading = opt.pop_reading(options)
    from xclip_runtime.cli.render import print_scores
    from xclip_runtime.model import XClip

    scores = XClip(bundle, **options).score(video, map(text_of, texts), reading=reading, truncate=truncate)
    if as_json:
        print_json(scores.to_dict())
    else:
        print_scores(scores)
