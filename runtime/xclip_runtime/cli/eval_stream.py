"""Command ``xclip-onnx eval-stream``."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.output import echo, print_error, print_json
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from xclip_runtime.evaluation.streams import StreamComparison


@click.command("eval-stream")
@opt.videos_argument
@opt.bundle_option
@opt.window_option(default=4.0, help="Length of a window, seconds.")
@opt.hop_option
@opt.refresh_option
@opt.option(
    "--max-windows", metavar="N", type=opt.COUNT, show_default="all", help="Maximum number of windows of a video."
)
@opt.json_option
@opt.label_options
@opt.model_options
def command(
    *,
    videos: tuple[str, ...],
    bundle: str,
    window: float,
    hop: float | None,
    refresh: int,
    max_windows: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare cached with exact windows on your own videos.

    VIDEO is as for `classify`. Every window is computed exactly and from cached frames. Prints how often both give the
    same best label, how far their logits are apart, and what a window costs.

    With --json, prints one JSON document per video, and one of all windows together.
    """
    opt.silence_native_logs()
    with_labels = opt.pop_labels(options)
    from xclip_runtime.evaluation.streams import ComparedWindow, compare_windows, summarise
    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip

    model = with_labels(XClip(bundle, **options))
    names, failed = list(expand(videos)), 0
    everything: list[ComparedWindow] = []
    for name in names:
        try:
            windows = compare_windows(model, name, window=window, hop=hop, reuse=Reuse(refresh=refresh))
            found = list(islice(windows, max_windows))
        except XClipError as error:
            print_error(error)
            failed += 1
            continue
        everything += found
        _show(name, summarise(found), as_json=as_json)
    if len(names) > 1 and everything:
        _show("all", summarise(everything), as_json=as_json)
    sys.exit(exit_code(failed, len(names)))


def _show(name: str, found: StreamComparison, *, as_json: bool) -> None:
    if as_json:
        print_json({"video": name, **found.to_dict()})
        return
    share = found.agreement
    echo(
        f"{name}: {found.windows} windows, {found.new_frames:.1f} new frames each\n"
        f"  same best label {share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%})\n"
        f"  |Δlogit| p50 {found.abs_logit_p50:.2g}, p99 {found.abs_logit_p99:.2g}, max {found.abs_logit_max:.2g}"
        f" (logits have a standard deviation of {found.logit_std:.2g})\n"
        f"  {found.exact_ms:.0f} ms a window exact, {found.cached_ms:.0f} ms cached:"
        f" {found.exact_ms / found.cached_ms:.1f} times as fast"
    )
