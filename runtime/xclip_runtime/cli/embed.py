"""``xclip-onnx embed``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.classify import INTERRUPTED, exit_code
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.options import (
    bundle_option,
    file_options,
    json_option,
    model_options,
    pop_reading,
    silence_native_logs,
)
from xclip_runtime.cli.results_file import json_line
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from xclip_runtime.cli.embeddings_file import EmbeddingsFile
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading


@click.command("embed")
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@bundle_option
@click.option("--out", required=True, metavar="NAME", help="Write NAME.npy, one row a video, and NAME.json, the names.")
@click.option("--with-features", is_flag=True, help="Write NAME.features.npy, too, which exact scoring of texts needs.")
@click.option("--resume", is_flag=True, help="Go on with the --out of an interrupted run; what is in it is not redone.")
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads that read videos ahead of the model. Default: the CPUs that this process may use, at most 4.",
)
@json_option
@file_options
@model_options
def command(
    *,
    videos: tuple[str, ...],
    bundle: str,
    out: str,
    with_features: bool,
    resume: bool,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the embedding of each VIDEO: float32, of unit length.

    VIDEO is a file, a folder (searched with all folders in it), a pattern such as "clips/**/*.mp4", or - for a list of
    files on standard input. A video that fails has no row; it is named on stderr and in NAME.json.
    """
    silence_native_logs()
    reading = pop_reading(options)
    from xclip_runtime.cli.render import progress_bar  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.model import XClip  # noqa: PLC0415

    names = list(expand(videos))
    model = XClip(bundle, **options)
    file = _open_file(out, model, reading, with_features=with_features, resume=resume)
    todo = list(file.remaining(names))
    done = len(names) - len(todo)
    try:
        with progress_bar("embedding", len(names), done) as progress:
            results = model.features_each(todo, reading=reading, workers=workers)
            for name, result in zip(todo, results, strict=True):
                if isinstance(result, XClipError):
                    click.echo(f"xclip-onnx: {result}", err=True)
                file.append(name, result)
                done += 1
                progress.advance(progress.task_ids[0])
        file.close()
    except KeyboardInterrupt:
        file.close()
        click.echo(
            f"xclip-onnx: interrupted, {done} of {len(names)} done; --out {out} --resume goes on from here", err=True
        )
        # The threads may be deep in a long video, where nothing can stop them; what is done is on the disk.
        os._exit(INTERRUPTED)
    _report(file, as_json=as_json)
    sys.exit(exit_code(len(file.errors), len(file.names) + len(file.errors)))


def _open_file(out: str, model: XClip, reading: Reading, *, with_features: bool, resume: bool) -> EmbeddingsFile:
    from xclip_runtime.cli.embeddings_file import EmbeddingsFile  # noqa: PLC0415 - keeps --help quick

    shape = model.bundle.manifest["model"]
    patches = (shape["image_size"] // shape["patch_size"]) ** 2
    facts = {
        "model": {
            "checkpoint": model.bundle.manifest["source"]["checkpoint"],
            "checkpoint_sha256": model.bundle.manifest["source"]["sha256"],
            "precision": model.precision,
            "profile": model.transform.profile,
        },
        "reading": {"start": reading.start, "end": reading.end},
    }
    dimension = model.bundle.projection_dim
    features = (patches, dimension) if with_features else None
    return EmbeddingsFile(out, (dimension,), features, facts, resume=resume)


def _report(file: EmbeddingsFile, *, as_json: bool) -> None:
    files = [str(path) for path in (file.embeds_path, file.names_path, file.features_path) if path]
    if as_json:
        click.echo(json_line({"files": files, "videos": len(file.names), "failed": len(file.errors)}))
    else:
        click.echo(f"{len(file.names)} embeddings in {', '.join(files)}")
