"""Command ``xclip-onnx index``: one module per subcommand."""

from __future__ import annotations

import click

from xclip_runtime.cli import LazyGroup

SUBCOMMANDS = ("add", "search", "list", "info", "delete", "eval")


@click.group("index", cls=LazyGroup, package=__name__, names=SUBCOMMANDS)
def command() -> None:
    """Index videos and search them with text (extra [index])."""
