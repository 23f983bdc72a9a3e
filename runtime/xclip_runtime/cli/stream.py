"""``xclip-onnx stream``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.options import (
    bundle_option,
    json_option,
    label_options,
    model_options,
    pop_labels,
    silence_native_logs,
)
from xclip_runtime.cli.results_file import json_line
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from xclip_runtime.results import Event

LABELS_SHOWN = 5


@click.command("stream")
@click.argument("source")
@bundle_option
@click.option("--window", type=float, default=4.0, show_default=True, help="Seconds that a window lasts.")
@click.option("--hop", type=float, help="Seconds from one window to the next. Default: half a window.")
@click.option(
    "--smooth", type=float, default=0.0, show_default=True, help="Seconds of exponential smoothing; 0 for none."
)
@click.option("--events", is_flag=True, help="Print when a label begins and ends to hold, instead of every window.")
@click.option(
    "--threshold",
    type=float,
    default=0.5,
    show_default=True,
    help="With --events: the probability from which it holds.",
)
@click.option(
    "--min-duration",
    type=float,
    default=0.0,
    show_default=True,
    help="With --events: the seconds for which it must hold.",
)
@click.option(
    "--live/--no-live",
    default=None,
    help="Drop windows that come while the model is busy, and reconnect; or keep the source waiting. "
    "Default: live for cameras and for addresses without an end.",
)
@click.option(
    "--give-up", type=click.FloatRange(0), help="Seconds without a frame after which a live source is given up."
)
@click.option("--raw", metavar="WIDTHxHEIGHT@FPS", help="Standard input is bare RGB frames (rawvideo, rgb24).")
@json_option
@label_options
@model_options
def command(
    *,
    source: str,
    bundle: str,
    window: float,
    hop: float | None,
    smooth: float,
    events: bool,
    threshold: float,
    min_duration: float,
    live: bool | None,
    give_up: float | None,
    raw: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what happens in SOURCE while it happens, with the labels of a bundle or with yours.

    SOURCE is the number of a camera, an address such as rtsp://... or http://..., a file, or - for standard input.
    Every --hop seconds the last --window seconds are classified. Times are those of the source. Ctrl-C ends it.

    With --json, one JSON document a line and window, or with --events a line when an event begins ("end": null) and
    one when it is over.
    """
    silence_native_logs()
    with_labels = pop_labels(options)
    from xclip_runtime.cli.render import event_line, window_line  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.model import XClip  # noqa: PLC0415
    from xclip_runtime.streaming.events import EventDetector  # noqa: PLC0415
    from xclip_runtime.streaming.sources import Backoff, RawFormat, open_source  # noqa: PLC0415

    model = with_labels(XClip(bundle, **options))
    backoff = Backoff() if give_up is None else Backoff(give_up=give_up)
    try:
        detector = EventDetector(threshold, min_duration) if events else None
        opened = open_source(source, live=live, raw=RawFormat.parse(raw) if raw else None, backoff=backoff)
        # An event may be of any label, however far down.
        top_k = None if events else LABELS_SHOWN
        results = model.stream(opened, window=window, hop=hop, top_k=top_k, smooth=smooth)
    except XClipError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    def show(event: Event) -> None:
        click.echo(json_line(event.to_dict()) if as_json else event_line(event))

    begun = failed = False
    try:
        for result in results:
            begun = True
            if detector is None:
                click.echo(json_line(result.to_dict()) if as_json else window_line(result))
            else:
                for event in detector.update(result):
                    show(event)
    except KeyboardInterrupt:
        pass
    except XClipError as error:
        if not begun:
            raise
        click.echo(f"xclip-onnx: {error}", err=True)
        failed = True
    for event in detector.finish() if detector else ():
        show(event)
    sys.exit(1 if failed else 0)
