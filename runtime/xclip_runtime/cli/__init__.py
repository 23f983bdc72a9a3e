"""Command line ``xclip-onnx``: presentation only. One module per command, imported when it is called."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime._version import __version__
from xclip_runtime.cli.exit_codes import CLOSED_PIPE
from xclip_runtime.cli.interruption import InterruptedCommandError, interruptions, raise_stop_signals
from xclip_runtime.cli.output import finish_output, log_to_stderr, prepare_streams, print_error
from xclip_runtime.errors import XClipError
from xclip_runtime.util.system_errors import explain, naming

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

COMMANDS = (
    *("demo", "classify", "score", "stream", "embed", "index", "labels", "eval", "eval-stream", "bench", "tune"),
    *("serve", "info", "verify", "doctor", "export", "pack", "push", "export-triton"),
)


class ClosedPipeError(Exception):
    """The reader of standard output has gone. Click would take a BrokenPipeError, and end with exit code 1."""


@contextmanager
def closed_pipes() -> Iterator[None]:
    """Raise a BrokenPipeError as a ClosedPipeError."""
    try:
        yield
    except BrokenPipeError as error:
        raise ClosedPipeError from error


class LazyGroup(click.Group):
    """Group whose commands live in modules of their own name, so that ``--version`` imports none of them.

    Args:
        package: Package of the modules.
        names: Commands, in the order of the help.
        settings: Click's own.
    """

    def __init__(self, *, package: str, names: Sequence[str], **settings: Any) -> None:
        super().__init__(**settings)
        self._package, self._names = package, names

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order of the help."""
        return list(self._names)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command's module."""
        if cmd_name not in self._names:
            return None
        command: click.Command = import_module(f"{self._package}.{cmd_name.replace('-', '_')}").command
        if not isinstance(command, LazyGroup):
            named = naming("standard output")(type(command).make_context.__get__(command))
            command.make_context = named  # type: ignore[method-assign]
        return command

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        """Parse the arguments, which prints a help that is asked for."""
        with closed_pipes(), naming("standard output"):
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        with interruptions(), closed_pipes():
            return super().invoke(ctx)


@click.group(
    cls=LazyGroup,
    package=__name__,
    names=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.version_option(__version__, prog_name="xclip-onnx")
def cli() -> None:
    """Run X-CLIP, the video CLIP, on ONNX Runtime: classify videos without PyTorch.

    Exit codes: 0 success; 1 some inputs failed and the others' results are printed; 2 wrong usage or nothing done;
    130 interrupted, 143 stopped by SIGTERM; 141 the reader of standard output has gone.
    """
    log_to_stderr()


def main() -> None:
    """Run the command line; every expected error becomes one line and an exit code."""
    prepare_streams()
    raise_stop_signals()
    try:
        sys.exit(cli(prog_name="xclip-onnx", standalone_mode=False))
    except click.ClickException as error:
        ctx = getattr(error, "ctx", None)
        if isinstance(error, click.NoSuchOption) and ctx:
            shown = {spelling for parameter in ctx.command.params for spelling in parameter.opts}
            similar = [spelling for spelling in error.possibilities or () if spelling in shown]
            error = click.NoSuchOption(error.option_name, possibilities=similar)
        text = error.format_message()
        if "\n" in text:  # The help of a group that was called without a command.
            click.echo(text, err=True)
        else:
            print_error(f"{text.rstrip('.')} (see `{ctx.command_path} --help`)" if ctx else text)
        sys.exit(error.exit_code)
    except ClosedPipeError:
        finish_output()
        print_error("standard output was closed before its end: nothing more is done")
        sys.exit(CLOSED_PIPE)
    except (XClipError, OSError) as error:
        finish_output()
        print_error(explain(error) if isinstance(error, OSError) and not isinstance(error, XClipError) else error)
        sys.exit(2)
    except click.Abort as error:
        _end(InterruptedCommandError(error.__cause__))
    except InterruptedCommandError as error:
        _end(error)


def _end(error: InterruptedCommandError) -> None:
    """End the process at once: threads deep in a long video cannot be stopped, and finished results are printed."""
    finish_output()
    print_error(error)
    sys.stderr.flush()
    os._exit(error.exit_code)
