"""Command ``xclip-onnx stream``."""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_error, print_json
from xclip_runtime.cli.parameters import Number
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from xclip_runtime.results import Event

LABELS_SHOWN = 5


@click.command("stream")
@click.argument("sources", metavar="SOURCE...", nargs=-1, required=True)
@opt.bundle_option
@opt.window_option(default=4.0, help="Length of a window, seconds.")
@opt.hop_option
@opt.option(
    "--smooth",
    metavar="SECONDS",
    type=float,
    default=0.0,
    help="Time constant of exponential smoothing, seconds; 0 for none.",
)
@opt.option("--events", is_flag=True, help="Print the start and end of events instead of every window.")
@opt.option(
    "--threshold",
    metavar="P",
    type=float,
    default=0.5,
    help="Minimum probability of a label during an event, from 0 to 1 (with --events).",
)
@opt.option(
    "--min-duration",
    metavar="SECONDS",
    type=float,
    default=0.0,
    help="Minimum duration of an event, seconds (with --events).",
)
@opt.option(
    "--live/--no-live",
    default=None,
    show_default="live for cameras and endless addresses",
    help="Live sources drop windows while the model is busy, and reconnect; others wait for the model.",
)
@opt.option(
    "--reconnect-timeout",
    aliases=("--give-up",),
    metavar="SECONDS",
    type=Number(0),
    show_default="never",
    help="Time without frames after which a live source ends in an error, seconds.",
)
@opt.option("--raw", metavar="WIDTHxHEIGHT@FPS", help="Read raw frames (rawvideo, rgb24) from standard input.")
@opt.option(
    "--reuse/--exact",
    default=False,
    help="Compute the new frames of a window only, an approximation.",
)
@opt.refresh_option
@opt.json_option
@opt.label_options
@opt.model_options
def command(
    *,
    sources: tuple[str, ...],
    bundle: str,
    window: float,
    hop: float | None,
    smooth: float,
    events: bool,
    threshold: float,
    min_duration: float,
    live: bool | None,
    reconnect_timeout: float | None,
    raw: str | None,
    reuse: bool,
    refresh: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Classify cameras, streams or long videos in windows.

    SOURCE is the number of a camera, an address such as rtsp://... or http://..., a file, or - for standard input.
    Every --hop seconds the last --window seconds are classified, until Ctrl-C. Times are those of the source.
    Windows of several sources that wait at the same time are computed together, and each line names its source.

    With --json, prints one JSON document per line and window, or with --events one when an event starts
    ("end": null) and one when it ends.
    """
    _check_together(events=events, reuse=reuse)
    opt.silence_native_logs()
    with_labels = opt.pop_labels(options)
    from xclip_runtime.cli.render import event_line, window_line
    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip
    from xclip_runtime.results import WindowResult
    from xclip_runtime.streaming.events import EventDetector
    from xclip_runtime.streaming.sources import Backoff, RawFormat, open_source
    from xclip_runtime.util.addresses import without_passwords

    model = with_labels(XClip(bundle, **options))
    backoff = Backoff() if reconnect_timeout is None else Backoff(reconnect_timeout=reconnect_timeout)
    try:
        detectors = [EventDetector(threshold, min_duration) for _ in sources] if events else None
        opener = partial(open_source, live=live, raw=RawFormat.parse(raw) if raw else None, backoff=backoff)
        # An event may be of any label, however low its rank.
        top_k = None if events else LABELS_SHOWN
        policy = Reuse(refresh=refresh) if reuse else False
        results = model.streams(
            sources, opener=opener, window=window, hop=hop, top_k=top_k, smooth=smooth, reuse=policy
        )
    except XClipError:
        raise
    except ValueError as error:
        raise click.UsageError(str(error)) from None

    def show(number: int, shown: Event | WindowResult) -> None:
        name = without_passwords(sources[number]) if len(sources) > 1 else None
        if as_json:
            print_json(({"source": name} if name else {}) | shown.to_dict())
        else:
            line = window_line(shown) if isinstance(shown, WindowResult) else event_line(shown)
            echo(f"{name}  {line}" if name else line)

    started = failed = False
    try:
        for number, result in results:
            if isinstance(result, XClipError):
                if len(sources) == 1 and not started:
                    raise result
                print_error(result)
                failed = True
                continue
            started = True
            for shown in [result] if detectors is None else detectors[number].update(result):
                show(number, shown)
    except KeyboardInterrupt:
        pass
    for number, detector in enumerate(detectors or ()):
        for event in detector.finish():
            show(number, event)
    sys.exit(1 if failed else 0)


def _check_together(*, events: bool, reuse: bool) -> None:
    """Refuse options that have no effect without another."""
    if not events and opt.given("threshold", "min_duration"):
        message = "--threshold and --min-duration are those of events: give --events too"
        raise click.UsageError(message)
    if not reuse and opt.given("refresh"):
        message = "--refresh is that of cached frames: give --reuse too"
        raise click.UsageError(message)
