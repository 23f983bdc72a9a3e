"""Two-stage pipelines: threads prepare the next items while one thread finishes the present ones."""

from __future__ import annotations

import itertools
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from xclip_runtime.errors import XClipError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Result = TypeVar("Result")

AHEAD = 2
"""Items that may wait between the stages, besides one a worker; evens out long and short videos."""


def pipelined_or_errors(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    finish: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result]],
    *,
    workers: int,
    batch: int = 1,
) -> Iterator[Result | XClipError]:
    """Run `pipelined_batches`, yielding an XClipError that ``prepare`` raises in the place of its item.

    ``finish`` gets the items that were prepared, and is not called for none.
    """

    def prepare_or_error(item: Item) -> tuple[Prepared] | XClipError:
        try:
            return (prepare(item),)
        except XClipError as error:
            return error

    def finish_prepared(pairs: Sequence[tuple[Item, tuple[Prepared] | XClipError]]) -> list[Result | XClipError]:
        done = [(item, *prepared) for item, prepared in pairs if not isinstance(prepared, XClipError)]
        results = iter(finish(done) if done else ())
        return [prepared if isinstance(prepared, XClipError) else next(results) for _, prepared in pairs]

    return pipelined_batches(items, prepare_or_error, finish_prepared, workers=workers, batch=batch)


def pipelined_batches(
    items: Iterable[Item],
    prepare: Callable[[Item], Prepared],
    finish: Callable[[Sequence[tuple[Item, Prepared]]], Sequence[Result]],
    *,
    workers: int,
    batch: int = 1,
) -> Iterator[Result]:
    """Prepare items in threads and finish them in batches; yield the results in the items' order.

    ``prepare`` runs in ``workers`` threads, ``finish`` in a single one, so that the caller's own thread only waits and
    Ctrl-C reaches it at once. ``finish`` gets ``batch`` pairs of item and prepared item, fewer only at the end, and
    returns one result for each. An exception of either comes in the place of its items and ends the iterator.

    Items, possibly endless, are taken as needed: at most ``workers + AHEAD + 1``, or two batches and the current one,
    are taken and not yet yielded. When the iterator is closed early, running calls end in the background and no further
    ones start.
    """
    preparing = ThreadPoolExecutor(workers, "xclip-prepare")
    finishing = ThreadPoolExecutor(1, "xclip-finish")
    pending: deque[Future[Sequence[Result]]] = deque()
    waiting = max(-(-(workers + AHEAD) // batch), 2 if batch > 1 else 1)

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
