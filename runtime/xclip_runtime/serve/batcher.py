"""Dynamic batching."""

from __future__ import annotations

import asyncio
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, eq=False)
class _Waiting(Generic[Item, Result]):
    item: Item
    result: asyncio.Future[Result]


class Batcher(Generic[Item, Result]):
    """Runs a function on batches in a thread of its own, one batch at a time.

    Items that arrive while a batch runs form the next one. Items whose caller has been cancelled are skipped.

    Args:
        run: Maps items to results in the same order.
        size: Maximum batch size.
        delay: Time that an item waits for its batch to fill while the thread is idle, seconds.
        on_batch: Called with the size of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Item]], Sequence[Result]],
        *,
        size: int,
        delay: float = 0.0,
        on_batch: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._run = run
        self._size = size
        self._delay = delay
        self._on_batch = on_batch
        self._queue: deque[_Waiting[Item, Result]] = deque()
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "xclip-model")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Number of queued items whose caller has not been cancelled."""
        return sum(not waiting.result.done() for waiting in self._queue)

    def start(self) -> None:
        """Start to process items."""
        self._task = asyncio.ensure_future(self._work())

    async def close(self) -> None:
        """Stop after the current batch and cancel queued items."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiting in self._queue:
            waiting.result.cancel()
        self._thread.shutdown()

    async def submit(self, item: Item) -> Result:
        """Queue an item and await its result.

        Raises:
            Exception: Exception of ``run`` for the batch of the item.
        """
        waiting: _Waiting[Item, Result] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._queue.append(waiting)
        self._arrived.set()
        return await waiting.result

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wait_for(1)
            if self._delay and self._size > 1:
                with anyio.move_on_after(self._delay):
                    await self._wait_for(self._size)
            batch = self._take()
            if not batch:
                continue
            self._on_batch(len(batch))
            try:
                results = await loop.run_in_executor(self._thread, self._run, [waiting.item for waiting in batch])
            except Exception as error:  # noqa: BLE001 - raised in the callers
                for waiting in batch:
                    if not waiting.result.done():
                        waiting.result.set_exception(error)
            else:
                for waiting, result in zip(batch, results, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(result)

    async def _wait_for(self, count: int) -> None:
        while self.waiting < count:
            self._arrived.clear()
            await self._arrived.wait()

    def _take(self) -> list[_Waiting[Item, Result]]:
        batch: list[_Waiting[Item, Result]] = []
        while self._queue and len(batch) < self._size:
            waiting = self._queue.popleft()
            if not waiting.result.done():
                batch.append(waiting)
        return batch
