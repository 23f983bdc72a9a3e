"""The command ``xclip-onnx``: presentation only. One module a command, imported when it is called."""

from __future__ import annotations

import logging
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime._version import __version__
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS = (
    *("demo", "classify", "score", "stream", "embed", "index", "labels", "eval", "bench", "serve"),
    *("info", "verify", "doctor", "export", "export-triton"),
)


class LazyGroup(click.Group):
    """A group whose commands live in modules of their own name, so that ``--version`` loads none of them.

    Args:
        package: Where the modules are.
        names: The commands, in the order in which a user meets them.
        settings: Those of click.
    """

    def __init__(self, *, package: str, names: Sequence[str], **settings: Any) -> None:
        super().__init__(**settings)
        self._package, self._names = package, names

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order in which a user meets them."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module."""
        if cmd_name not in self._names:
            return None
        command: click.Command = import_module(f"{self._package}.{cmd_name.replace('-', '_')}").command
        return command


@click.group(
    cls=LazyGroup,
    package=__name__,
    names=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)
@click.version_option(__version__, prog_name="xclip-onnx")
def cli() -> None:
    """X-CLIP, the video CLIP, on ONNX Runtime: classify videos without PyTorch.

    Exit codes: 0 done; 1 some inputs failed, the others' results are printed; 2 wrong usage, or nothing could be done.
    """
    logging.basicConfig(level=logging.WARNING, format="xclip-onnx: %(message)s", stream=sys.stderr)


def main() -> None:
    """Entry point: turn every expected error into one line and an exit code."""
    try:
        cli(prog_name="xclip-onnx")
    except (XClipError, OSError) as error:
        click.echo(f"xclip-onnx: {error}", err=True)
        sys.exit(2)
