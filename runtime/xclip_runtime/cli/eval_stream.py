"""Command ``xclip-onnx eval-stream``."""

from __future__ import annotations

import os
import sys
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.output import echo, print_error, print_json
from xclip_runtime.errors import DatasetError, XClipError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from xclip_runtime.evaluation.datasets import Sample
    from xclip_runtime.evaluation.streams import Accuracy, StreamComparison


@click.command("eval-stream")
@opt.videos_argument
@opt.bundle_option
@opt.window_option(default=4.0, help="Length of a window, seconds.")
@opt.hop_option
@opt.refresh_option
@opt.option(
    "--max-windows", metavar="N", type=opt.COUNT, show_default="all", help="Maximum number of windows of a video."
)
@opt.option(
    "--segments",
    metavar="FILE",
    type=opt.FILE,
    help="True labels of the videos: CSV with columns path, label, start and end (seconds), or a list as for `eval`.",
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
    segments: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Compare cached with exact windows on your own videos.

    VIDEO is as for `classify`. Every window is computed exactly and from cached frames. Prints how often both give the
    same best label, how far their logits are apart, and what a window costs; with --segments also how often each is
    right, and how long after a change of label it says so.

    With --json, prints one JSON document per video, and one of all windows together.
    """
    opt.silence_native_logs()
    with_labels = opt.pop_labels(options)
    from xclip_runtime.evaluation.datasets import find_samples, segments_of, with_labels_of
    from xclip_runtime.evaluation.streams import ComparedStream, compare_windows, summarise
    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip

    samples = find_samples(segments, "list") if segments else []
    model = with_labels(XClip(bundle, **options))
    truth = segments_of(with_labels_of(samples, model.labels))
    names, failed = list(expand(videos)), 0
    everything: list[ComparedStream] = []
    for name in names:
        try:
            labelled = _segments(truth, name, segments) if segments else []
            windows = compare_windows(model, name, window=window, hop=hop, reuse=Reuse(refresh=refresh))
            found = ComparedStream(list(islice(windows, max_windows)), labelled)
        except XClipError as error:
            print_error(error)
            failed += 1
            continue
        everything.append(found)
        _show(name, summarise([found], model.labels), as_json=as_json)
    if len(names) > 1 and everything:
        _show("all", summarise(everything, model.labels), as_json=as_json)
    sys.exit(exit_code(failed, len(names)))


def _segments(truth: Mapping[str, list[Sample]], video: str, file: str) -> list[Sample]:
    try:
        return truth[os.path.realpath(video)]
    except KeyError:
        message = f"{file} has no label of {video}: add it, or leave the video out"
        raise DatasetError(message) from None


def _show(name: str, found: StreamComparison, *, as_json: bool) -> None:
    if as_json:
        print_json({"video": name, **found.to_dict()})
        return
    share = found.agreement
    echo(
        f"{name}: {found.windows} windows, {found.new_frames:.1f} new frames each\n"
        f"  same best label {share.value:.1%} (95 % interval {share.low:.1%} to {share.high:.1%})\n"
        f"  |Δlogit| p50 {found.abs_logit.p50:.2g}, p99 {found.abs_logit.p99:.2g}, max {found.abs_logit.max:.2g}"
        f" (logits have a standard deviation of {found.logit_std:.2g})\n"
        f"  {found.exact_ms:.0f} ms a window exact, {found.cached_ms:.0f} ms cached:"
        f" {found.exact_ms / found.cached_ms:.1f} times as fast"
    )
    if found.labelled is not None:
        echo(_accuracy_text(found.labelled))


def _accuracy_text(found: Accuracy) -> str:
    exact, cached = found.accuracy_exact, found.accuracy_cached
    lines = [f"  of {exact.n} windows with a label {exact.value:.1%} are right exact, {cached.value:.1%} cached"]
    lines.append(f"  McNemar's exact test p = {found.mcnemar_p:.3g}")
    for name, each in (("exact", found.detection_s_exact), ("cached", found.detection_s_cached)):
        if each.changes:
            after = "" if each.mean is None else f", after {each.mean:.2f} s on average"
            lines.append(f"  {name} windows detect {each.detected} of {each.changes} changes of label{after}")
    return "\n".join(lines)
