"""Two stages side by side: the next items are prepared by a few threads while one thread works on the present one."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

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
    """``finish(item, prepare(item))`` of every item, in their order; see :func:`pipelined_batches`."""
    return pipelined_batches(items, prepare, lambda pairs: [finish(*pairs[0])], workers=workers, ahead=ahead)


def pipelined_batches(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    finish: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result]],
    *,
    workers: int,
    batch: int = 1,
    ahead: int = AHEAD,
) -> Iterator[Result]:
    """``finish`` of items with what ``prepare`` made of them, several at a time; the results are in the items' order.

    ``prepare`` runs in ``workers`` threads, ``finish`` in a single one, so that the caller's own thread only waits and
    Ctrl-C reaches it at once. Items are taken as needed: at most ``workers + ahead + 1``, or two batches and the one
    in work, are between taken and yielded. Where the iterator is closed early, what has begun ends in the background
    and nothing more is begun.

    Args:
        items: May be endless.
        prepare: The first stage, called from several threads.
        finish: The second stage, never called twice at a time; gives one result for each of its items.
        workers: Threads of the first stage, at least 1.
        batch: Items that the second stage gets together; only the last time fewer.
        ahead: Prepared items that may wait for the second stage.

    Raises:
        Exception: What ``prepare`` or ``finish`` raises, in the place of its items; the iterator ends there.
    """
    preparing = ThreadPoolExecutor(workers, "xclip-prepare")
    finishing = ThreadPoolExecutor(1, "xclip-finish")
    pending: deque[Future[Sequence[Result]]] = deque()
    waiting = max(-(-(workers + ahead) // batch), 2 if batch > 1 else 1)

    def finish_prepared(chosen: Sequence[Item], prepared: Sequence[Future[Prepared]]) -> Sequence[Result]:
        return finish([(item, future.result()) for item, future in zip(chosen, prepared, strict=True)])

    source = iter(items)
    try:
        while chosen := list(itertools.islice(source, batch)):
            prepared = [preparing.submit(prepare, item) for item in chosen]
            pending.append(finishing.submit(finish_prepared, chosen, prepared))
            while pending and (len(pending) > waiting or pending[0].done()):
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
    finally:
        preparing.shutdown(wait=False, cancel_futures=True)
        finishing.shutdown(wait=False, cancel_futures=True)
