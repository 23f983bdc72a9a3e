"""Command ``xclip-onnx labels``: label sets, encoded once."""

from __future__ import annotations

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.output import echo, print_json
from xclip_runtime.util.locks import locked
from xclip_runtime.util.plain_text import text_of


@click.group("labels")
def command() -> None:
    """Encode label sets for bundles with the same text tower."""


@command.command("encode")
@click.argument("file")
@opt.bundle_option
@opt.output_file_option(required=True, metavar="NAME", help="Write NAME.json and NAME.npy.")
@opt.templates_option
@opt.truncate_option
@opt.overwrite_option
@opt.json_option
def encode(
    *, file: str, bundle: str, output: str, templates: tuple[str, ...], truncate: bool, overwrite: bool, as_json: bool
) -> None:
    """Encode labels once, for use without the extra [text].

    FILE holds one label per line, or is CSV with a column 'name'; hmdb51 is built in. `xclip-onnx classify
    --labels-file NAME.json` uses the result, with every bundle that has the same text tower.
    """
    from xclip_runtime.bundle import Bundle
    from xclip_runtime.text.encoder import TextEncoder
    from xclip_runtime.text.label_embeddings import encode_labels, save_labels
    from xclip_runtime.text.labels import PLACEHOLDER, read_label_names

    encoder = TextEncoder(Bundle.open(bundle))
    with locked(output):
        labels = encode_labels(
            encoder, read_label_names(file), tuple(map(text_of, templates)) or PLACEHOLDER, truncate=truncate
        )
        description, embeds = save_labels(labels, output, overwrite=overwrite)
    if as_json:
        document = {
            "labels": len(labels.names),
            "templates": labels.templates,
            "files": [str(description), str(embeds)],
            "text_tower_sha256": labels.text_tower_sha256,
        }
        print_json(document)
    else:
        echo(f"{len(labels.names)} labels in {description} and {embeds}")
