"""A time limit that holds even where native code does not return."""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

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
    outcome: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((work(), None))
        except BaseException as error:  # noqa: BLE001 - raised in the thread that waits
            outcome.put((None, error))

    threading.Thread(target=run, name="xclip-read", daemon=True).start()
    try:
        # More than a thread can wait for is as good as for ever.
        result, error = outcome.get(timeout=min(seconds + GRACE, threading.TIMEOUT_MAX))
    except queue.Empty:
        raise DeadlineError from None
    if error is not None:
        raise error
    return result  # type: ignore[return-value]
