"""Items that wait go through together; nobody waits for those who have left."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xclip_runtime.serve.batcher import Batcher


def in_batcher(work, run=lambda items: [2 * item for item in items], **options):
    """Run ``work(batcher)`` and return its result with the sizes of the batches."""
    sizes = []

    async def main():
        batcher = Batcher(run, on_batch=sizes.append, **options)
        batcher.start()
        try:
            return await work(batcher)
        finally:
            await batcher.close()

    return asyncio.run(main()), sizes


async def together(batcher, items):
    return await asyncio.gather(*(batcher.submit(item) for item in items))


@settings(max_examples=20, deadline=None)
@given(items=st.lists(st.integers(), max_size=20), size=st.integers(1, 8), delay=st.sampled_from([0, 0.001]))
def test_every_item_gets_its_own_result_and_no_batch_is_too_large(items, size, delay):
    results, sizes = in_batcher(lambda batcher: together(batcher, items), size=size, delay=delay)

    assert results == [2 * item for item in items]
    assert sum(sizes) == len(items)
    assert all(1 <= taken <= size for taken in sizes)


def test_what_arrives_while_a_batch_runs_forms_the_next_one():
    begun, go_on = threading.Event(), threading.Event()

    def run(items):
        begun.set()
        assert go_on.wait(60)
        return items

    async def work(batcher):
        first = asyncio.ensure_future(batcher.submit(0))
        await asyncio.to_thread(begun.wait, 60)
        rest = asyncio.ensure_future(together(batcher, range(1, 5)))
        while batcher.waiting < 4:
            await asyncio.sleep(0)
        go_on.set()
        return [await first, *await rest]

    assert in_batcher(work, run, size=8) == ([0, 1, 2, 3, 4], [1, 4])


def test_a_full_batch_does_not_wait_for_its_delay():
    results, sizes = in_batcher(lambda batcher: together(batcher, range(4)), size=4, delay=3600)

    assert (results, sizes) == ([0, 2, 4, 6], [4])


def test_an_error_reaches_its_own_batch_and_the_next_one_runs():
    def run(items):
        if 13 in items:
            message = "unlucky"
            raise ValueError(message)
        return items

    async def work(batcher):
        results = await asyncio.gather(*(batcher.submit(item) for item in (1, 13, 2)), return_exceptions=True)
        return [results[0], str(results[1]), results[2]]

    assert in_batcher(work, run, size=1)[0] == [1, "unlucky", 2]


def test_a_caller_who_leaves_frees_the_place():
    begun, go_on, seen = threading.Event(), threading.Event(), []

    def run(items):
        seen.extend(items)
        begun.set()
        assert go_on.wait(60)
        return items

    async def work(batcher):
        tasks = [asyncio.ensure_future(batcher.submit(item)) for item in range(4)]
        await asyncio.to_thread(begun.wait, 60)
        tasks[0].cancel()  # in the model already
        tasks[2].cancel()  # still waiting
        await asyncio.sleep(0)
        waiting = batcher.waiting
        go_on.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        return waiting, [r for r in results if isinstance(r, int)]

    (waiting, results), _ = in_batcher(work, run, size=1)

    assert waiting == 2
    assert results == [1, 3]
    assert seen == [0, 1, 3]


def test_closing_cancels_what_waits():
    async def work(batcher):
        await batcher.close()
        waiting = asyncio.ensure_future(batcher.submit(1))
        await asyncio.sleep(0)
        await batcher.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    in_batcher(work, size=1)
