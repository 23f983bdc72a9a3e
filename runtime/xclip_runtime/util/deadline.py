"""Run work in daemon threads that can be abandoned, since native code cannot be interrupted."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Result = TypeVar("Result")

GRACE = 2.0
"""Seconds beyond the limit for work to stop by itself."""


class UnresponsiveError(TimeoutError):
    """Work that runs on after its limit."""


def within(seconds: float | None, work: Callable[[], Result]) -> Result:
    """Run `work`, in a thread if there is a limit that it should keep to by itself, and return its result.

    A decoder that waits for a dead network drive cannot be interrupted; its thread is abandoned.

    Raises:
        UnresponsiveError: `work` is still running `GRACE` after the limit.
    """
    if seconds is None:
        return work()
    future = in_daemon_thread(work)
    # A thread cannot wait for more than TIMEOUT_MAX, which is years.
    wait([future], min(seconds + GRACE, threading.TIMEOUT_MAX))
    if not future.done():
        raise UnresponsiveError
    return future.result()


def together(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run works at the same time, the first in this thread, and return their results in order.

    After all have ended, the exception of the first that failed is raised, in their order.
    """
    futures = [in_daemon_thread(work) for work in works[1:]]
    try:
        first = works[0]()
    finally:
        wait(futures)
    return [first, *(future.result() for future in futures)]


def in_daemon_thread(work: Callable[[], Result]) -> Future[Result]:
    """Run work in a daemon thread, which unlike an executor's does not keep the process alive."""
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - raised in the waiting thread
            future.set_exception(error)

    threading.Thread(target=run, name="xclip-read", daemon=True).start()
    return future
