"""``xclip-onnx index add``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli.classify import INTERRUPTED, exit_code
from xclip_runtime.cli.index.options import index_option
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.options import bundle_option, json_option, model_options, silence_native_logs
from xclip_runtime.cli.results_file import json_line
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xclip_runtime.search import Added
    from xclip_runtime.search.video_index import Note


@click.command("add")
@click.argument("videos", nargs=-1, required=True, metavar="VIDEO...")
@index_option
@bundle_option
@click.option(
    "--window",
    type=click.FloatRange(min=0, min_open=True),
    help="Cut videos into windows of so many seconds and find each on its own. Default: a video as a whole.",
)
@click.option(
    "--hop",
    type=click.FloatRange(min=0, min_open=True),
    help="Seconds from one window to the next. Default: half a window.",
)
@click.option(
    "--features",
    type=click.Choice(["fp16", "fp32"]),
    help="How a new index stores the features for exact scores. Default: fp16; fp32 takes twice the space.",
)
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Threads that read whole videos ahead of the model. Default: the CPUs that this process may use, at most 4.",
)
@json_option
@model_options
def command(
    *,
    videos: tuple[str, ...],
    folder: str,
    bundle: str,
    window: float | None,
    hop: float | None,
    features: Any,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Add each VIDEO to an index, which is made if need be.

    VIDEO is a file, a folder, a pattern or -, as of `classify`. A video that has not changed since it was added is
    skipped, one that has changed is replaced. What was added is safe on the disk; after a crash, the same command
    goes on from there, within a long video, too.

    With --json, one JSON document a line and video.
    """
    if hop is not None and window is None:
        message = "--hop needs --window: give the seconds of a window, too"
        raise click.UsageError(message)
    silence_native_logs()
    from xclip_runtime.model import XClip  # noqa: PLC0415
    from xclip_runtime.search import VideoIndex  # noqa: PLC0415 - keeps --help quick

    names = list(expand(videos))
    with VideoIndex.create(folder, XClip(bundle, **options), features=features) as index:
        outcomes = Counter(
            added.outcome
            for added in add(
                names,
                lambda note: index.add(names, window=window, hop=hop, workers=workers, on_window=note),
                as_json=as_json,
            )
        )
        windows = len(index)
    if not as_json:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        held = "1 window" if windows == 1 else f"{windows} windows"
        click.echo(f"{counts}: {held}, {index.store.bytes_on_disk / 1e6:.1f} MB in {folder}")
    sys.exit(exit_code(outcomes["failed"], outcomes.total()))


def add(names: list[str], begin: Callable[[Note], Iterator[Added]], *, as_json: bool) -> list[Added]:
    """Add videos with a bar; those that fail are named on standard error, and Ctrl-C ends the process.

    Args:
        names: What is added.
        begin: Starts it; is given what to call for each window.
        as_json: Whether to print a line a video.
    """
    from xclip_runtime.cli.render import progress_bar  # noqa: PLC0415 - keeps --help quick
    from xclip_runtime.search.contact_sheet import clock  # noqa: PLC0415

    done: list[Added] = []
    with progress_bar("adding", len(names), least=1) as progress:
        task = progress.task_ids[0]

        def note(name: str, end: float) -> None:
            progress.update(task, description=f"{os.path.basename(name)[-40:]} {clock(end)}")  # noqa: PTH119

        try:
            for added in begin(note):
                done.append(added)
                if added.error is not None:
                    click.echo(f"xclip-onnx: {added.error}", err=True)
                if as_json:
                    click.echo(json_line(added.to_dict()))
                progress.advance(task)
        except ValueError as error:
            if isinstance(error, XClipError):
                raise
            raise click.UsageError(str(error)) from None
        except KeyboardInterrupt:
            progress.stop()
            message = f"interrupted, {len(done)} of {len(names)} done; the same command goes on from here"
            click.echo(f"xclip-onnx: {message}", err=True)
            sys.stdout.flush()
            # As in classify: threads deep in a video cannot be stopped, and what is done is on the disk.
            os._exit(INTERRUPTED)
    return done
