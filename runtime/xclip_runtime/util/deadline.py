"""Run work in daemon threads that can be abandoned, since native code cannot be interrupted."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Result = TypeVar("Result")

GRACE = 2.0
"""Seconds beyond the limit for work to stop by itself."""


class UnresponsiveError(TimeoutError):
    """Work that runs on after its limit."""


def within(seconds: float | None, work: Callable[[], Result]) -> Result:
    """Run `work` with a limit that it keeps to by itself where it can.

    A decoder that waits for a dead network drive cannot be interrupted; its thread is abandoned.

    Args:
        seconds: The limit; None for none.
        work: Called in a thread if there is a limit.

    Returns:
        The result of `work`.

    Raises:
        UnresponsiveError: `work` is still running `GRACE` after the limit.
        Exception: The exception of `work`.
    """
    if seconds is None:
        return work()
    # A thread cannot wait for more than TIMEOUT_MAX, which is years.
    return _Task(work).result(min(seconds + GRACE, threading.TIMEOUT_MAX))


def together(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run works at the same time, the first in this thread, and return their results in order.

    Raises:
        Exception: The exception of the first work that failed, in their order, after all have ended.
    """
    tasks = [_Task(work) for work in works[1:]]
    try:
        first = works[0]()
    finally:
        for task in tasks:
            task.wait()
    return [first, *(task.result() for task in tasks)]


class _Task(Generic[Result]):
    """Work in a daemon thread."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._outcome: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="xclip-read", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.put((self._work(), None))
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            self._outcome.put((None, error))

    def wait(self) -> None:
        self._thread.join()

    def result(self, timeout: float | None = None) -> Result:
        try:
            result, error = self._outcome.get(timeout=timeout)
        except queue.Empty:
            raise UnresponsiveError from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]
