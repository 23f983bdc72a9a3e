"""Command ``xclip-onnx embed``."""

from __future__ import annotations

import sys
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.output import echo, print_json
from xclip_runtime.errors import XClipError
from xclip_runtime.util.locks import locked

if TYPE_CHECKING:
    from xclip_runtime.cli.embeddings_file import EmbeddingsFile
    from xclip_runtime.model import XClip
    from xclip_runtime.video.load import Reading


@click.command("embed")
@opt.videos_argument
@opt.bundle_option
@opt.output_file_option(
    required=True, metavar="NAME", aliases=("--out",), help="Write NAME.npy, a row per video, and NAME.json, the names."
)
@opt.option("--with-features", is_flag=True, help="Also write NAME.features.npy, for exact scoring of texts.")
@opt.resume_option
@opt.workers_option
@opt.json_option
@opt.file_options
@opt.model_options
def command(
    *,
    videos: tuple[str, ...],
    bundle: str,
    output: str,
    with_features: bool,
    resume: bool,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Write the embeddings of videos: float32, unit length.

    VIDEO is as for `classify`. A video that fails has no row; it is named on standard error and in NAME.json.
    """
    opt.silence_native_logs()
    reading = opt.pop_reading(options)
    from xclip_runtime.cli.bulk import Bulk
    from xclip_runtime.model import XClip

    names = list(expand(videos))
    model = XClip(bundle, **options)
    with locked(output.removesuffix(".npy")):
        file = _open_file(output, model, reading, with_features=with_features, resume=resume)
        todo = list(file.remaining(names))
        how = f"--output {output} --resume continues from here"
        with Bulk("embedding", len(names), len(names) - len(todo), resume=how) as bulk, closing(file):
            results = model.features_each(todo, reading=reading, workers=workers)
            for name, result in zip(todo, results, strict=True):
                file.append(name, result)
                bulk.advance(result if isinstance(result, XClipError) else None)
    files = [str(path) for path in (file.embeds_path, file.names_path, file.features_path) if path]
    if as_json:
        print_json({"files": files, "videos": len(file.names), "failed": len(file.errors)})
    else:
        echo(f"{len(file.names)} embeddings in {', '.join(files)}")
    sys.exit(exit_code(len(file.errors), len(file.names) + len(file.errors)))


def _open_file(output: str, model: XClip, reading: Reading, *, with_features: bool, resume: bool) -> EmbeddingsFile:
    from xclip_runtime.cli.embeddings_file import EmbeddingsFile

    shape, source = model.bundle.manifest["model"], model.bundle.manifest["source"]
    patches = (shape["image_size"] // shape["patch_size"]) ** 2
    facts = {
        "model": {
            "checkpoint": source["checkpoint"],
            "checkpoint_sha256": source["sha256"],
            "precision": model.precision,
            "profile": model.transform.profile,
        },
        "reading": {"start": reading.start, "end": reading.end},
    }
    dimension = model.bundle.projection_dim
    features = (patches, dimension) if with_features else None
    return EmbeddingsFile(output, (dimension,), features, facts, resume=resume)
