"""Work in threads that may be left behind, for native code does not always return."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Result = TypeVar("Result")

GRACE = 2.0
"""Seconds that work may take beyond its limit to stop by itself."""


class DeadlineError(TimeoutError):
    """The work does not end."""


def within(seconds: float | None, work: Callable[[], Result]) -> Result:
    """The result of `work`, which is expected to mind the limit itself wherever it can.

    A call into a decoder that waits for a dead network drive cannot be interrupted; its thread is left behind.

    Raises:
        DeadlineError: It is still busy `GRACE` after the limit.
        Exception: What `work` raises.
    """
    if seconds is None:
        return work()
    # More than a thread can wait for is as good as for ever.
    return _Task(work).result(min(seconds + GRACE, threading.TIMEOUT_MAX))


def together(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """The results of works that are done at the same time, the first of them in this thread.

    Raises:
        Exception: What the first of them to fail, in their order, raises, after all have ended.
    """
    tasks = [_Task(work) for work in works[1:]]
    try:
        first = works[0]()
    finally:
        for task in tasks:
            task.wait()
    return [first, *(task.result() for task in tasks)]


class _Task(Generic[Result]):
    """Work in a thread of its own, which does not keep the process from ending."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._outcome: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="xclip-read", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._outcome.put((self._work(), None))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            self._outcome.put((None, error))

    def wait(self) -> None:
        self._thread.join()

    def result(self, timeout: float | None = None) -> Result:
        try:
            result, error = self._outcome.get(timeout=timeout)
        except queue.Empty:
            raise DeadlineError from None
        if error is not None:
            raise error
        return result  # type: ignore[return-value]
