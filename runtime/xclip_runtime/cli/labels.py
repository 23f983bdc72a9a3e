"""``xclip-onnx labels``: label sets that are encoded once."""

from __future__ import annotations

import json

import click

from xclip_runtime.cli.options import bundle_option, json_option, template_option, truncate_option


@click.group("labels")
def command() -> None:
    """Label sets that are encoded once and used by every bundle with the same text tower."""


@command.command("encode")
@click.argument("file", type=click.Path(dir_okay=False))
@bundle_option
@click.option(
    "--output", "-o", required=True, metavar="NAME", type=click.Path(dir_okay=False), help="Write NAME.json, NAME.npy."
)
@template_option
@truncate_option
@click.option("--overwrite", is_flag=True, help="Replace existing files.")
@json_option
def encode(
    *,
    file: str,
    bundle: str,
    output: str,
    templates: tuple[str, ...],
    truncate: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Encode the labels in FILE, one a line or a CSV with a column 'name' (extra [text]).

    `xclip-onnx classify --labels-file NAME.json` takes the result, on machines without the extra, too.
    """
    from xclip_runtime.bundle import Bundle  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.text.encoder import TextEncoder  # noqa: PLC0415
    from xclip_runtime.text.label_embeddings import encode_labels, save_labels  # noqa: PLC0415
    from xclip_runtime.text.labels import PLACEHOLDER, read_label_names  # noqa: PLC0415

    encoder = TextEncoder(Bundle.open(bundle))
    labels = encode_labels(encoder, read_label_names(file), templates or PLACEHOLDER, truncate=truncate)
    description, embeds = save_labels(labels, output, overwrite=overwrite)
    if as_json:
        document = {
            "labels": len(labels.names),
            "templates": labels.templates,
            "files": [str(description), str(embeds)],
            "text_tower_sha256": labels.text_tower_sha256,
        }
        click.echo(json.dumps(document, ensure_ascii=False))
    else:
        click.echo(f"{len(labels.names)} labels in {description} and {embeds}")
