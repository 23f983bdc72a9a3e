"""Two stages side by side: the next items are prepared by a few threads while one thread works on the present one."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

AHEAD = 2
"""Items that may wait between the stages, beside one for each worker: enough to even out long and short videos."""


def pipelined(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    finish: Callable[[Item, Prepared], Result],
    *,
    workers: int,
    ahead: int = AHEAD,
) -> Iterator[Result]:
    """``finish(item, prepare(item))`` of every item, in their order.

    ``prepare`` runs in ``workers`` threads, ``finish`` in a single one, so that the caller's own thread only waits and
    Ctrl-C reaches it at once. Items are taken as needed: at most ``workers + ahead + 1`` are between taken and yielded.
    Where the iterator is closed early, what has begun ends in the background and nothing more is begun.

    Args:
        items: May be endless.
        prepare: The first stage, called from several threads.
        finish: The second stage, never called twice at a time.
        workers: Threads of the first stage, at least 1.
        ahead: Prepared items that may wait for the second stage.

    Raises:
        Exception: What ``prepare`` or ``finish`` raises, in the place of its item; the iterator ends there.
    """
    preparing = ThreadPoolExecutor(workers, "xclip-prepare")
    finishing = ThreadPoolExecutor(1, "xclip-finish")
    pending: deque[Future[Result]] = deque()

    def finish_prepared(item: Item, prepared: Future[Prepared]) -> Result:
        return finish(item, prepared.result())

    try:
        for item in items:
            pending.append(finishing.submit(finish_prepared, item, preparing.submit(prepare, item)))
            while pending and (len(pending) > workers + ahead or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        preparing.shutdown(wait=False, cancel_futures=True)
        finishing.shutdown(wait=False, cancel_futures=True)
