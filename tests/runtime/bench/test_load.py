"""Loops over an answer whose time is known, so that what they count can be checked."""

from __future__ import annotations

import threading
import time

from xclip_runtime.bench.load import closed_loop, open_loop


def test_a_closed_loop_asks_each_sample_once_and_counts_every_query():
    asked = []
    done = closed_loop(asked.extend, seconds=0, count=5, samples_per_query=3)

    assert asked == list(range(15))
    assert (len(done.latencies_ms), done.samples) == (5, 15)


def test_a_closed_loop_goes_on_for_its_time():
    done = closed_loop(lambda _: time.sleep(0.001), seconds=0.05, count=1)

    assert done.seconds >= 0.05
    assert all(latency >= 1 for latency in done.latencies_ms)


def test_a_closed_loop_keeps_so_many_queries_in_flight():
    meet = threading.Barrier(3, timeout=20)
    done = closed_loop(lambda _: meet.wait(), seconds=0, count=6, concurrency=3)

    assert done.samples >= 6


def test_an_open_loop_counts_waiting_from_the_intended_start():
    """All queries come within a millisecond, and each takes ten: the last one waits for all the others."""
    done = open_loop(lambda _: time.sleep(0.01), rate=1e5, seconds=0, count=8)

    assert len(done.latencies_ms) == 8
    assert done.latencies_ms[-1] >= 8 * 10 - 1
    assert done.latencies_ms == sorted(done.latencies_ms)


def test_arrivals_do_not_wait_for_answers():
    """The first answer waits for the second query: in a closed loop that would never come."""
    second = threading.Event()

    def answer(samples):
        if samples[0] == 0:
            assert second.wait(20)
        else:
            second.set()

    assert len(open_loop(answer, rate=1000, seconds=0, count=2, concurrency=2).latencies_ms) == 2
