"""Preparing and finishing overlap; order, bounds and errors are those of a plain loop."""

from __future__ import annotations

import itertools
import threading
import time

import pytest

from xclip_runtime.errors import VideoError
from xclip_runtime.util.prefetch import AHEAD, pipelined_batches, pipelined_or_errors

TIMEOUT = 20.0
"""Seconds until a test fails that would otherwise wait for ever."""


def pipelined(items, prepare, finish, **options):
    """Batches of one item."""
    return pipelined_batches(items, prepare, lambda pairs: [finish(*pairs[0])], **options)


class Stage:
    """Sleeps like native code that has let go of the interpreter, and counts its calls."""

    def __init__(self, *durations):
        self._durations = itertools.cycle(durations)
        self.running = self.most_running = self.begun = 0
        self._lock = threading.Lock()

    def __call__(self, item, prepared=None):
        with self._lock:
            self.running += 1
            self.begun += 1
            self.most_running = max(self.most_running, self.running)
            duration = next(self._durations)
        time.sleep(duration)
        with self._lock:
            self.running -= 1
        return item


def test_the_next_item_is_prepared_while_one_is_finished():
    """Stages that took turns would wait for each other."""
    prepared = [threading.Event() for _ in range(20)]

    def finish(item, _):
        return prepared[min(item + 1, 19)].wait(TIMEOUT)

    assert all(pipelined(range(20), lambda item: prepared[item].set(), finish, workers=1))


@pytest.mark.parametrize("workers", [2, 3])
def test_so_many_items_are_prepared_at_the_same_time(workers):
    meet = threading.Barrier(workers, timeout=TIMEOUT)

    assert list(pipelined(range(4 * workers), lambda _: meet.wait(), lambda item, _: item, workers=workers)) == list(
        range(4 * workers)
    )


def test_the_output_is_in_the_order_of_the_input_whoever_is_ready_first():
    decoding = Stage(0.03, 0.0, 0.01, 0.0)

    assert list(pipelined("abcdefgh", decoding, Stage(0.0), workers=4)) == list("abcdefgh")
    assert decoding.most_running > 1


def test_the_second_stage_never_runs_twice_at_a_time():
    inferring = Stage(0.002)

    list(pipelined(range(30), Stage(0.0), inferring, workers=4))

    assert inferring.most_running == 1


def test_an_endless_input_is_taken_only_as_far_as_needed():
    decoding, workers = Stage(0.0), 2
    results = pipelined(itertools.count(), decoding, Stage(0.0), workers=workers)

    assert list(itertools.islice(results, 10)) == list(range(10))
    time.sleep(0.05)
    assert decoding.begun <= 10 + workers + AHEAD + 1
    results.close()


@pytest.mark.parametrize("failing", ["prepare", "finish"])
def test_an_unexpected_error_comes_in_its_place_and_ends_the_work(failing):
    def fail_at_three(item, prepared=None):
        if item == 3:
            raise ZeroDivisionError
        return item

    stages = {"prepare": Stage(0.0), "finish": Stage(0.0), failing: fail_at_three}
    results = pipelined(range(100), stages["prepare"], stages["finish"], workers=2)

    assert list(itertools.islice(results, 3)) == [0, 1, 2]
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(StopIteration):
        next(results)


def test_closing_early_begins_nothing_more_and_does_not_wait():
    begun, released, busy = [], [], threading.Semaphore(0)
    taken, release = threading.Event(), threading.Event()

    def items():
        yield from range(3)
        taken.set()
        yield from range(3, 100)

    def prepare(item):
        begun.append(item)
        if item == 0:
            return taken.wait(TIMEOUT)
        busy.release()
        released.append(release.wait(TIMEOUT))
        return item

    results = pipelined(items(), prepare, lambda item, _: item, workers=2)
    assert next(results) == 0
    assert all(busy.acquire(timeout=TIMEOUT) for _ in range(2))

    results.close()

    assert released == []
    release.set()
    for thread in threading.enumerate():
        if thread.name.startswith("xclip-prepare"):
            thread.join(TIMEOUT)
    assert sorted(begun) == [0, 1, 2]


def test_no_input_gives_no_output():
    assert list(pipelined([], Stage(0.0), Stage(0.0), workers=1)) == []


@pytest.mark.parametrize(("count", "batch"), [(7, 3), (3, 3), (1, 4), (0, 2)])
def test_batches_keep_the_order_and_only_the_last_is_smaller(count, batch):
    sizes = []

    def finish(pairs):
        sizes.append(len(pairs))
        return [(item, made) for item, made in pairs]

    results = list(pipelined_batches(range(count), lambda item: -item, finish, workers=2, batch=batch))

    assert results == [(item, -item) for item in range(count)]
    assert sizes == [batch] * (count // batch) + [count % batch] * bool(count % batch)


def test_batches_are_taken_as_needed_from_an_endless_source():
    taken = []

    def items():
        for item in itertools.count():
            taken.append(item)
            yield item

    results = pipelined_batches(items(), lambda item: item, lambda pairs: [i for i, _ in pairs], workers=1, batch=4)

    assert [next(results) for _ in range(6)] == [0, 1, 2, 3, 4, 5]
    assert len(taken) <= 5 * 4
    results.close()


def prepare_even(item):
    if item % 2:
        message = f"{item} is odd"
        raise VideoError(message)
    return item * 10


def test_an_error_of_ours_stands_in_the_place_of_its_item():
    results = list(pipelined_or_errors(range(5), prepare_even, lambda pairs: pairs, workers=2, batch=2))

    assert [str(result) if isinstance(result, VideoError) else result for result in results] == [
        (0, 0),
        "1 is odd",
        (2, 20),
        "3 is odd",
        (4, 40),
    ]


def test_a_batch_in_which_all_fail_is_not_finished():
    def finish(pairs):
        assert pairs
        return pairs

    assert len(list(pipelined_or_errors([1, 3, 5], prepare_even, finish, workers=1, batch=3))) == 3


def test_other_errors_end_the_iteration():
    with pytest.raises(TypeError):
        list(pipelined_or_errors(["a"], prepare_even, lambda pairs: pairs, workers=1))
