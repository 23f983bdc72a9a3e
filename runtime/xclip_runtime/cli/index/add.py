"""Command ``xclip-onnx index add``."""

from __future__ import annotations

import os
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any

import click

from xclip_runtime.cli import options as opt
from xclip_runtime.cli.exit_codes import exit_code
from xclip_runtime.cli.inputs import expand
from xclip_runtime.cli.output import echo, print_json
from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from xclip_runtime.search import Added
    from xclip_runtime.search.video_index import Note


@click.command("add")
@opt.videos_argument
@opt.index_option
@opt.bundle_option
@opt.window_option(show_default="the whole video", help="Length of a window, seconds. Windows are found one by one.")
@opt.hop_option
@opt.option("--reuse/--exact", default=False, help="Compute the new frames of a window only, an approximation.")
@opt.refresh_option
@opt.option(
    "--features",
    type=click.Choice(["fp16", "fp32"]),
    show_default="fp16",
    help="Precision of stored features in a new index; fp32 takes twice the space.",
)
@opt.workers_option
@opt.json_option
@opt.model_options
def command(
    *,
    videos: tuple[str, ...],
    folder: str,
    bundle: str,
    window: float | None,
    hop: float | None,
    reuse: bool,
    refresh: int,
    features: Any,
    workers: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Add videos to an index, created if necessary.

    VIDEO is as for `classify`. Unchanged videos are skipped, changed ones replaced. Everything added is on disk: after
    a crash, the same command continues, even within a long video.

    With --json, prints one JSON document per line and video.
    """
    if hop is not None and window is None:
        message = "--hop needs --window: give the length of a window, too"
        raise click.UsageError(message)
    if reuse and window is None:
        message = "--reuse needs --window: give the length of a window, too"
        raise click.UsageError(message)
    if opt.given("refresh") and not reuse:
        message = "--refresh is that of cached frames: give --reuse too"
        raise click.UsageError(message)
    opt.silence_native_logs()
    from xclip_runtime.inference.cached_frames import Reuse
    from xclip_runtime.model import XClip
    from xclip_runtime.search import VideoIndex

    names, policy = list(expand(videos)), Reuse(refresh=refresh) if reuse else None
    with VideoIndex.create(folder, XClip(bundle, **options), features=features) as index:
        outcomes = Counter(
            added.outcome
            for added in add(
                names,
                lambda note: index.add(names, window=window, hop=hop, reuse=policy, workers=workers, on_window=note),
                as_json=as_json,
            )
        )
        windows = len(index)
    if not as_json:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
        held = "1 window" if windows == 1 else f"{windows} windows"
        echo(f"{counts}: {held}, {index.store.bytes_on_disk / 1e6:.1f} MB in {folder}")
    sys.exit(exit_code(outcomes["failed"], outcomes.total()))


def add(names: list[str], begin: Callable[[Note], Iterator[Added]], *, as_json: bool) -> list[Added]:
    """Add videos with a progress bar; failures are named on standard error, and Ctrl-C ends the process.

    Args:
        names: Videos to add.
        begin: Starts to add them; its argument is called for each window.
        as_json: Print a line per video.
    """
    from xclip_runtime.cli.bulk import Bulk
    from xclip_runtime.search.contact_sheet import clock

    done: list[Added] = []
    with Bulk("adding", len(names), resume="the same command continues from here", least=1) as bulk:

        def note(name: str, end: float) -> None:
            bulk.describe(f"{os.path.basename(name)[-40:]} {clock(end)}")  # noqa: PTH119 - a string

        try:
            for added in begin(note):
                done.append(added)
                if as_json:
                    print_json(added.to_dict())
                bulk.advance(added.error)
        except ValueError as error:
            if isinstance(error, XClipError):
                raise
            raise click.UsageError(str(error)) from None
    return done
