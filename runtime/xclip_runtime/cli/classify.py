"""``xclip-onnx classify``."""

from __future__ import annotations

import hashlib
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.options import (
    bundle_option,
    json_option,
    label_options,
    model_options,
    pop_labels,
    pop_reading,
    reading_options,
    silence_native_logs,
)
from xclip_runtime.cli.results_file import ResultsFile, json_line
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from xclip_runtime.model import XClip
    from xclip_runtime.results import Classification
    from xclip_runtime.video.load import Reading

INTERRUPTED = 130


@click.command("classify")
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@bundle_option
@click.option("--top-k", "-k", type=click.IntRange(1), default=5, show_default=True, help="Labels to show, best first.")
@click.option("--out", metavar="FILE", type=click.Path(dir_okay=False), help="Write the JSON Lines there, crash-safe.")
@click.option("--resume", is_flag=True, help="Go on with the --out of an interrupted run; what is in it is not redone.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads that read videos ahead of the model. Default: the CPUs that this process may use, at most 4.",
)
@click.option(
    "--batch",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Clips that go through the model together: more work at a time for a GPU, later answers.",
)
@json_option
@label_options
@reading_options
@model_options
def command(
    *,
    videos: tuple[str, ...],
    bundle: str,
    top_k: int,
    out: str | None,
    resume: bool,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what happens in each VIDEO, with the labels of a bundle or with yours.

    VIDEO is a file, a folder (searched with all folders in it), a pattern such as "clips/**/*.mp4", or - for a list of
    files on standard input, which is read to its end first.

    With --json, one JSON document a line and video, in the order given; a video that fails has an "error" in it.
    """
    if resume and out is None:
        message = "--resume needs --out: name the file to go on with"
        raise click.UsageError(message)
    silence_native_logs()
    reading, with_labels = pop_reading(options), pop_labels(options)
    from xclip_runtime.cli.render import print_classification, progress_bar  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.model import XClip  # noqa: PLC0415

    names = list(expand(videos))
    results_file = ResultsFile(out, resume=resume) if out else None
    model = with_labels(XClip(bundle, **options))
    if results_file:
        results_file.check_settings(_settings(model, reading, top_k))
    todo = list(results_file.remaining(names)) if results_file else names
    failed, done = results_file.failed if results_file else 0, len(names) - len(todo)
    try:
        with progress_bar("classifying", len(names), done) as progress:
            results = model.classify_each(todo, top_k=top_k, reading=reading, workers=workers)
            for name, result in zip(todo, results, strict=True):
                if isinstance(result, XClipError):
                    failed += 1
                    click.echo(f"xclip-onnx: {result}", err=True)
                if results_file:
                    results_file.append(_document(name, result))
                if as_json:
                    click.echo(json_line(_document(name, result)))
                elif not results_file and not isinstance(result, XClipError):
                    print_classification(result)
                done += 1
                progress.advance(progress.task_ids[0])
    except KeyboardInterrupt:
        how = f"; --out {out} --resume goes on from here" if out else ""
        click.echo(f"xclip-onnx: interrupted, {done} of {len(names)} done{how}", err=True)
        sys.stdout.flush()
        # The threads may be deep in a long video, where nothing can stop them; what is done is on the disk or printed.
        os._exit(INTERRUPTED)
    sys.exit(exit_code(failed, len(names)))


def _settings(model: XClip, reading: Reading, top_k: int) -> dict[str, Any]:
    """What the results depend on; not the device, so that a run may go on elsewhere."""
    return {
        "bundle": model.bundle.digest,
        "labels": hashlib.sha256(json_line({"labels": model.labels}).encode()).hexdigest(),
        "precision": model.precision,
        "profile": model.transform.profile,
        "top_k": top_k,
        "views": f"{reading.views.clips}x{reading.views.crops}",
        "start": reading.start,
        "end": reading.end,
    }


def exit_code(failed: int, total: int) -> int:
    """0 when all went well, 1 when some inputs failed, 2 when all of them did."""
    return 0 if failed == 0 else 2 if failed == total else 1


def _document(video: str, result: Classification | XClipError) -> dict[str, Any]:
    if isinstance(result, XClipError):
        return {"video": video, "error": {"type": type(result).__name__, "message": str(result)}}
    return result.to_dict()
