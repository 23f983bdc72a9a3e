"""Command ``xclip-onnx classify``."""

from __future__ import annotations

import hashlib
import sys
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.output import json_text, print_json
from xclip_runtime.cli.results_file import ResultsFile
from xclip_runtime.errors import XClipError
from xclip_runtime.util.locks import locked

if TYPE_CHECKING:
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading


@click.command("classify")
@opt.videos_argument
@opt.bundle_option
@opt.top_k_option(default=5, help="Number of labels to show, best first.")
@opt.output_file_option(
    metavar="FILE",
    type=click.Path(dir_okay=False),
    aliases=("--out",),
    help="Write JSON Lines to this file; every line survives a crash.",
)
@opt.resume_option
@opt.workers_option
@opt.batch_size_option(type=opt.COUNT, default=1, aliases=("--batch",))
@opt.json_option
@opt.label_options
@opt.reading_options
@opt.model_options
def command(
    *,
    videos: tuple[str, ...],
    bundle: str,
    top_k: int,
    output: str | None,
    resume: bool,
    workers: int | None,
    batch_size: int,
    as_json: bool,
    **options: Any,
) -> None:
    """Classify videos with a bundle's labels, or with yours.

    VIDEO is a file, a folder (searched recursively), a pattern such as "clips/**/*.mp4", or - for a list of files on
    standard input, which is read to its end first.

    With --json, prints one JSON document per line and video, in the order given; a video that fails has an "error".
    """
    opt.check_resume(output, resume=resume)
    opt.silence_native_logs()
    reading, with_labels = opt.pop_reading(options), opt.pop_labels(options)
    from xclip_runtime.cli.bulk import Bulk
    from xclip_runtime.cli.render import print_classification
    from xclip_runtime.model import XClip

    names = list(expand(videos))
    with locked(output):
        file = ResultsFile(output, resume=resume) if output else None
        model = with_labels(XClip(bundle, batch_size=batch_size, **options))
        if file:
            file.check_settings(_settings(model, reading, top_k))
        todo = list(file.remaining(names)) if file else names
        failed = file.failed if file else 0
        how = f"--output {output} --resume continues from here" if file else None
        with Bulk("classifying", len(names), len(names) - len(todo), resume=how) as bulk:
            results = model.classify_each(todo, top_k=top_k, reading=reading, workers=workers)
            for name, result in zip(todo, results, strict=True):
                error = result if isinstance(result, XClipError) else None
                document = {"video": name, "error": error.to_dict()} if error else result.to_dict()
                if file:
                    file.append(document)
                if as_json:
                    print_json(document)
                elif not file and not isinstance(result, XClipError):
                    print_classification(result)
                bulk.advance(error)
    sys.exit(exit_code(failed + bulk.failed, len(names)))


def _settings(model: XClip, reading: Reading, top_k: int) -> dict[str, Any]:
    """Return the settings that the results depend on; the device may change when a run continues."""
    return {
        "bundle": model.bundle.digest,
        "labels": hashlib.sha256(json_text({"labels": model.labels}).encode()).hexdigest(),
        "precision": model.precision,
        "profile": model.transform.profile,
        "top_k": top_k,
        "views": f"{reading.views.positions}x{reading.views.crops}",
        "start": reading.start,
        "end": reading.end,
    }
