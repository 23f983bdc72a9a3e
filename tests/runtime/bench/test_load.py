"""Loops over an answer whose time is known, so that what they count can be checked; quantiles of few values."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xclip_runtime.bench.load import closed_loop, open_loop, quantile, summary

TIMES = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=150)


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


@pytest.mark.parametrize(("q", "needed"), [(0.5, 2), (0.9, 10), (0.95, 20), (0.99, 100)])
def test_a_quantile_needs_a_sample_beyond_it(q, needed):
    assert quantile(range(1, needed), q) is None
    assert quantile(range(1, needed + 1), q) == round(q * needed)


@given(TIMES, st.sampled_from([0.5, 0.9, 0.99]))
def test_a_quantile_is_one_of_the_values_with_the_right_share_below(values, q):
    found = quantile(values, q)

    assert found is None or np.mean(np.asarray(values) <= found) >= q - 1e-9
    assert found is None or found in values


def test_a_summary_of_few_values_has_no_p99():
    found = summary([float(value) for value in range(1, 21)])

    assert (found["n"], found["p50"], found["p90"], found["p95"], found["p99"], found["max"]) == (
        20,
        10,
        18,
        19,
        None,
        20,
    )
    assert summary([])["mean"] is None
