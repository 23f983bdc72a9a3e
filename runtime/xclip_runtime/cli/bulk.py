"""Progress, failures and interruption of commands that process many files."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
from rich.text import Text

from xclip_runtime.cli.output import print_error
from xclip_runtime.cli.render import error_console

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self


class RateColumn(ProgressColumn):
    """Items per second, empty until the first is done."""

    def render(self, task: Task) -> Text:
        """Format the rate."""
        return Text(f"{task.speed:.2g}/s" if task.speed else "")


class Bulk:
    """Context manager with a progress bar on standard error, shown on a terminal only.

    Ctrl-C inside it tells how much is done.

    Args:
        action: Text before the bar, such as "classifying".
        total: Number of items.
        done: Items that an earlier run has finished.
        resume: How to continue after Ctrl-C, for the message.
        least: Number of items from which the bar is shown.

    Attributes:
        done: Items finished so far.
        failed: Items that failed in this run.
    """

    def __init__(self, action: str, total: int, done: int = 0, *, resume: str | None = None, least: int = 2) -> None:
        self.done, self.failed = done, 0
        self._total, self._resume = total, resume
        err = error_console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            RateColumn(),
            TimeElapsedColumn(),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            console=err,
            disable=total < least or not err.is_terminal,
            transient=True,
        )
        self._task = self._progress.add_task(action, total=total, completed=done)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        self._progress.stop()
        if isinstance(error, KeyboardInterrupt):
            how = f"; {self._resume}" if self._resume else ""
            error.args = (f"interrupted, {self.done} of {self._total} done{how}",)

    def describe(self, text: str) -> None:
        """Change the text before the bar."""
        self._progress.update(self._task, description=text)

    def advance(self, error: object = None) -> None:
        """Count an item as done; an error is printed as one line."""
        if error is not None:
            self.failed += 1
            print_error(error)
        self.done += 1
        self._progress.advance(self._task)
