"""Tables, bars and progress for people."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from xclip_runtime.results import Classification, Event, LabelScore, VideoScores, WindowResult

BAR_WIDTH = 30


def console() -> Console:
    """Standard output, without guessing colours for file paths and numbers."""
    return Console(highlight=False, emoji=False, markup=False, soft_wrap=True)


def error_console() -> Console:
    """Standard error, for progress and failures."""
    return Console(stderr=True, highlight=False, emoji=False, markup=False)


def label_table(labels: Sequence[LabelScore]) -> Table:
    """Labels with a bar for each probability."""
    table = Table.grid(padding=(0, 2))
    for score in labels:
        table.add_row(score.label, f"{score.prob:6.1%}", "█" * round(score.prob * BAR_WIDTH))
    return table


def timing_line(result: Classification | VideoScores) -> str:
    """Which provider ran, at which precision, and the milliseconds of each stage."""
    t = result.timings_ms
    stages = " · ".join(f"{name} {getattr(t, name):.0f}" for name in ("decode", "prepare", "vision", "prompt"))
    return f"{result.provider} {result.precision} · {stages} · total {t.total:.0f} ms"


def print_classification(result: Classification) -> None:
    """One video's labels, bars and timings."""
    out = console()
    out.print(result.video, style="bold")
    out.print(label_table(result.labels))
    out.print(timing_line(result), style="dim")
    for note in result.frames.notes:
        out.print(note, style="dim")


def print_scores(scores: VideoScores) -> None:
    """One video's texts in the order given, with cosine, logit and probability."""
    out = console()
    out.print(scores.video, style="bold")
    table = Table("cosine", "logit", "of these", "text", box=None, pad_edge=False)
    for score in scores.texts:
        table.add_row(f"{score.cosine:6.3f}", f"{score.logit:6.2f}", f"{score.prob:6.1%}", score.text)
    out.print(table)
    out.print(timing_line(scores), style="dim")


def window_line(result: WindowResult) -> str:
    """When, the best label, how late, and what was lost."""
    notes = [f"{result.top.label} {result.top.prob:.1%}", f"{result.latency_ms:.0f} ms late"]
    if result.dropped_windows:
        notes.append(f"{result.dropped_windows} windows with {result.dropped_frames} frames dropped")
    if result.gap:
        notes.append(f"nothing came from {result.gap.start:.1f} to {result.gap.end:.1f} s")
    return f"{result.start:9.1f} - {result.end:.1f} s  {' · '.join(notes)}"


def event_line(event: Event) -> str:
    """When, which label, and the highest probability."""
    end = "…" if event.end is None else f"{event.end:.1f} s"
    return f"{event.start:9.1f} - {end}  {event.label} {event.prob:.1%}"


class RateColumn(ProgressColumn):
    """How many are done a second."""

    def render(self, task: Task) -> Text:
        """Empty until the first is done."""
        return Text(f"{task.speed:.2g}/s" if task.speed else "")


@contextmanager
def progress_bar(description: str, total: int, completed: int = 0, *, least: int = 2) -> Iterator[Progress]:
    """A bar with rate and time left on standard error; silent unless that is a terminal and ``least`` are to do."""
    err = error_console()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        RateColumn(),
        TimeElapsedColumn(),
        TextColumn("ETA"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=err, disable=total < least or not err.is_terminal, transient=True) as progress:
        progress.add_task(description, total=total, completed=completed)
        yield progress
