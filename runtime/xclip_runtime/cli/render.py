"""Tables, bars and status lines for people."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from xclip_runtime.hub import DOWNLOADING
from xclip_runtime.util.system_errors import naming

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from xclip_runtime.results import Classification, Event, LabelScore, VideoScores, WindowResult

BAR_WIDTH = 30


class Screen(Console):
    """Standard output or error, without highlighting of paths and numbers."""

    def __init__(self, *, stderr: bool = False, soft_wrap: bool = False) -> None:
        super().__init__(highlight=False, emoji=False, markup=False, stderr=stderr, soft_wrap=soft_wrap)

    def print(self, *objects: Any, **settings: Any) -> None:
        """Print; standard output is named by an error of the system, and standard error fails without one."""
        with suppress(OSError) if self.stderr else naming("standard output"):
            super().print(*objects, **settings)

    def on_broken_pipe(self) -> None:
        """Leave the exit code to the command line."""
        raise  # noqa: PLE0704 - rich calls it where it catches the BrokenPipeError


def console() -> Screen:
    """Return standard output."""
    return Screen(soft_wrap=True)


def error_console() -> Screen:
    """Return standard error, for progress and failures."""
    return Screen(stderr=True)


@contextmanager
def stages(first: str) -> Iterator[Callable[[str], None]]:
    """Show the current stage on standard error: a spinner on a terminal, otherwise a line per stage."""
    err = error_console()
    with err.status(first, spinner="line" if err.options.ascii_only else "dots") as status:

        def show(stage: str) -> None:
            if not err.is_terminal or stage.startswith(DOWNLOADING):
                status.stop()  # the hub's client draws a bar of its own
                err.print(stage)
            else:
                status.update(stage)
                status.start()

        yield show


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, wrap: Sequence[str] | None = None) -> Table:
    """Build a table without lines.

    Args:
        header: Column names.
        rows: Cells.
        wrap: Columns whose cells may wrap; None for all.
    """
    built = Table(box=None, pad_edge=False)
    for name in header:
        built.add_column(name, no_wrap=wrap is not None and name not in wrap)
    for row in rows:
        built.add_row(*row)
    return built


def grid(rows: Iterable[Sequence[str]]) -> Table:
    """Build a table without header and lines."""
    built = Table.grid(padding=(0, 2))
    for row in rows:
        built.add_row(*row)
    return built


def label_table(labels: Sequence[LabelScore]) -> Table:
    """Build a table of labels with a bar for each probability."""
    return grid((score.label, f"{score.prob:6.1%}", "█" * round(score.prob * BAR_WIDTH)) for score in labels)


def timing_line(result: Classification | VideoScores) -> str:
    """Format provider, precision, graph and milliseconds per stage."""
    t = result.timings_ms
    parts = " · ".join(f"{name} {getattr(t, name):.0f}" for name in ("decode", "prepare", "vision", "prompt"))
    return f"{result.provider} {result.precision} {result.graph} · {parts} · total {t.total:.0f} ms"


def print_classification(result: Classification) -> None:
    """Print a video's labels, bars, timings and notes."""
    out = console()
    out.print(result.video, style="bold")
    out.print(label_table(result.labels))
    out.print(timing_line(result), style="dim")
    for note in result.frames.notes:
        out.print(note, style="dim")


def print_scores(scores: VideoScores) -> None:
    """Print a video's texts in the order given, with cosine, logit and probability."""
    rows = ((f"{s.cosine:6.3f}", f"{s.logit:6.2f}", f"{s.prob:6.1%}", s.text) for s in scores.texts)
    out = console()
    out.print(scores.video, style="bold")
    out.print(table(("cosine", "logit", "of these", "text"), rows))
    out.print(timing_line(scores), style="dim")


def window_line(result: WindowResult) -> str:
    """Format a window: times, best label, latency, dropped windows and gap."""
    notes = [f"{result.top.label} {result.top.prob:.1%}", f"{result.latency_ms:.0f} ms late", str(result.encoding)]
    if result.dropped_windows:
        notes.append(f"{result.dropped_windows} windows with {result.dropped_frames} frames dropped")
    if result.gap:
        notes.append(f"no frames from {result.gap.start:.1f} to {result.gap.end:.1f} s")
    return f"{result.start:9.1f} - {result.end:.1f} s  {' · '.join(notes)}"


def event_line(event: Event) -> str:
    """Format an event: times, label and highest probability."""
    end = "…" if event.end is None else f"{event.end:.1f} s"
    return f"{event.start:9.1f} - {end}  {event.label} {event.prob:.1%}"
