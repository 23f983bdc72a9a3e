"""Options that the subcommands of ``index`` share."""

from __future__ import annotations

import click

index_option = click.option(
    "--index",
    "-i",
    "folder",
    required=True,
    envvar="XCLIP_ONNX_INDEX",
    show_envvar=True,
    type=click.Path(file_okay=False),
    help="Folder of the index.",
)
