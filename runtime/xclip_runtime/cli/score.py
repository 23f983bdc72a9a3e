"""``xclip-onnx score``."""

from __future__ import annotations

from typing import Any

import click

from xclip_runtime.cli.options import (
    bundle_option,
    json_option,
    model_options,
    pop_reading,
    reading_options,
    silence_native_logs,
    truncate_option,
)
from xclip_runtime.cli.results_file import json_line


@click.command("score")
@click.argument("video")
@click.argument("texts", nargs=-1, required=True, metavar="TEXT...")
@bundle_option
@truncate_option
@json_option
@reading_options
@model_options
def command(*, video: str, texts: tuple[str, ...], bundle: str, truncate: bool, as_json: bool, **options: Any) -> None:
    """Say how well each TEXT describes VIDEO (extra [text]).

    The cosine and the logit can be compared between videos; the probability is a softmax over the texts given.
    """
    silence_native_logs()
    reading = pop_reading(options)
    from xclip_runtime.cli.render import print_scores  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.model import XClip  # noqa: PLC0415

    scores = XClip(bundle, **options).score(video, texts, reading=reading, truncate=truncate)
    if as_json:
        click.echo(json_line(scores.to_dict()))
    else:
        print_scores(scores)
