"""Latencies under closed-loop load, which waits for each answer, and open-loop load, which arrives at random."""

from __future__ import annotations

import math
import queue
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Answer = Callable[[Sequence[int]], object]

Query = TypeVar("Query")


@dataclass(frozen=True)
class LoadResult:
    """Measurements of a loop."""

    latencies_ms: list[float]
    """Latencies of the queries, in the order of their completion."""
    samples: int
    """Number of samples answered."""
    seconds: float
    """Time from the first query to the last answer."""

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / self.seconds


def quantile(values: Sequence[float], q: float) -> float | None:
    """Compute the nearest-rank quantile; None with fewer than ``1 / (1 - q)`` values, of which none would be beyond it.

    A p90 needs 10 values, a p99 needs 100.
    """
    if not values or len(values) * (1 - q) < 1 - 1e-9:
        return None
    return float(sorted(values)[math.ceil(q * len(values) - 1e-9) - 1])


def summary(milliseconds: Sequence[float]) -> dict[str, Any]:
    """Summarise latencies: n, mean, minimum, maximum, and the quantiles that n supports, in milliseconds."""
    return {
        "n": len(milliseconds),
        "mean": float(np.mean(milliseconds)) if milliseconds else None,
        "min": min(milliseconds, default=None),
        **{f"p{100 * q:.0f}": quantile(milliseconds, q) for q in (0.5, 0.9, 0.95, 0.99)},
        "max": max(milliseconds, default=None),
    }


def closed_loop(
    answer: Answer, *, seconds: float, count: int, samples_per_query: int = 1, concurrency: int = 1
) -> LoadResult:
    """Send a query, wait for the answer, and repeat, from ``concurrency`` threads, for a minimum time and count."""
    latencies: list[float] = []
    begun = time.perf_counter()
    issued = iter(range(2**62))

    def ask() -> None:
        while (number := next(issued)) < count or time.perf_counter() - begun < seconds:
            first = number * samples_per_query
            started = time.perf_counter()
            answer(range(first, first + samples_per_query))
            latencies.append(1000 * (time.perf_counter() - started))

    # One of them in this thread, which Ctrl-C reaches at once.
    threads = [threading.Thread(target=ask, daemon=True) for _ in range(concurrency - 1)]
    for thread in threads:
        thread.start()
    ask()
    for thread in threads:
        thread.join()
    return LoadResult(latencies, len(latencies) * samples_per_query, time.perf_counter() - begun)


def open_loop(answer: Answer, *, rate: float, seconds: float, count: int, concurrency: int = 1) -> LoadResult:
    """Send queries at random times, whether or not the ones before are answered, for a minimum time and count.

    Arrivals are a Poisson process of ``rate`` queries a second, drawn in advance with a fixed seed; ``concurrency`` of
    them are answered at a time. A latency counts from the scheduled arrival, so it includes queueing (no coordinated
    omission), and a late answer delays no arrival.
    """
    gaps = np.random.default_rng(0).exponential(1 / rate, max(count, int(2 * rate * seconds) + 1))
    arrivals = np.cumsum(gaps)
    arrivals = arrivals[: max(count, int(np.searchsorted(arrivals, seconds)))].tolist()
    latencies: list[float] = []
    begun = time.perf_counter()

    def serve(number: int) -> None:
        answer((number,))
        latencies.append(1000 * (time.perf_counter() - begun - arrivals[number]))

    with serving(serve, concurrency) as send:
        for number, arrival in enumerate(arrivals):
            time.sleep(max(0.0, begun + arrival - time.perf_counter()))
            send(number)
    return LoadResult(latencies, len(latencies), time.perf_counter() - begun)


@contextmanager
def serving(serve: Callable[[Query], object], count: int) -> Iterator[Callable[[Query], None]]:
    """Start threads that serve the queries sent in the block; its end waits for the last answer.

    An error in the block drops the queries that are waiting.
    """
    waiting: queue.SimpleQueue[Query | None] = queue.SimpleQueue()

    def run() -> None:
        while (query := waiting.get()) is not None:
            serve(query)

    threads = [threading.Thread(target=run, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield waiting.put
    except BaseException:
        with suppress(queue.Empty):
            while True:
                waiting.get_nowait()
        raise
    finally:
        for _ in threads:
            waiting.put(None)
        for thread in threads:
            thread.join()
