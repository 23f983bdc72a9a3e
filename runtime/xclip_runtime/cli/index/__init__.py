"""``xclip-onnx index``: one module a subcommand."""

from __future__ import annotations

import click

from xclip_runtime.cli import LazyGroup

SUBCOMMANDS = ("add", "search", "list", "info", "delete", "eval")


@click.group("index", cls=LazyGroup, package=__name__, names=SUBCOMMANDS)
def command() -> None:
    """Find videos by words: add videos to an index, search it (extra [index]).

    Every subcommand takes --json.
    """
