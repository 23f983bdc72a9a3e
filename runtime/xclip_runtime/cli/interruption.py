"""Ctrl-C, SIGTERM and SIGHUP unwind a command, so that what is temporary or half written is removed."""

from __future__ import annotations

import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


class StopSignal(KeyboardInterrupt):
    """SIGTERM or SIGHUP: all that handles Ctrl-C handles it, too."""

    number: int = signal.SIGTERM


class InterruptedCommandError(Exception):
    """A command was interrupted, and has unwound. Click would turn a KeyboardInterrupt into an error without a cause.

    Attributes:
        exit_code: That of shells, 128 + the signal's number.
    """

    def __init__(self, cause: BaseException | None) -> None:
        super().__init__(str(cause or "") or "interrupted")
        self.exit_code = 128 + (cause.number if isinstance(cause, StopSignal) else signal.SIGINT)


def raise_stop_signals() -> None:
    """Raise SIGTERM and SIGHUP as `StopSignal`, unless they are ignored, as under nohup."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def _raise(number: int, _: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # the next one ends the process at once
    error = StopSignal()
    error.number = number
    raise error


@contextmanager
def interruptions() -> Iterator[None]:
    """Raise a KeyboardInterrupt as an InterruptedCommandError."""
    try:
        yield
    except KeyboardInterrupt as error:
        raise InterruptedCommandError(error) from error
