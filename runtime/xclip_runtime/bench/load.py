"""Closed-loop load, which waits for each answer, and open-loop load, whose queries arrive at random."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Answer = Callable[[Sequence[int]], object]


@dataclass(frozen=True)
class Loaded:
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


def closed_loop(
    answer: Answer, *, seconds: float, count: int, samples_per_query: int = 1, concurrency: int = 1
) -> Loaded:
    """Send a query, wait for the answer, and repeat, from ``concurrency`` threads.

    Args:
        answer: Answers the samples with these numbers; called from several threads where ``concurrency`` is over 1.
        seconds: Minimum duration.
        count: Minimum number of queries.
        samples_per_query: Samples of a query.
        concurrency: Queries in flight.
    """
    latencies: list[float] = []
    begun = time.perf_counter()
    issued = iter(range(2**62))

    def ask() -> None:
        while (number := next(issued)) < count or time.perf_counter() - begun < seconds:
            first = number * samples_per_query
            started = time.perf_counter()
            answer(range(first, first + samples_per_query))
            latencies.append(1000 * (time.perf_counter() - started))

    _in_threads(ask, concurrency)
    return Loaded(latencies, len(latencies) * samples_per_query, time.perf_counter() - begun)


def open_loop(
    answer: Answer, *, rate: float, seconds: float, count: int, concurrency: int = 1, seed: int = 0
) -> Loaded:
    """Send queries at random times, whether or not the ones before are answered.

    Arrivals are a Poisson process, drawn in advance. A latency counts from the scheduled arrival, so it includes
    queueing (no coordinated omission), and a late answer delays no arrival.

    Args:
        answer: As in `closed_loop`.
        rate: Queries a second.
        seconds: Minimum duration of the arrivals.
        count: Minimum number of arrivals.
        concurrency: Queries answered at a time; the rest queues.
        seed: Seed of the arrivals.
    """
    rng = np.random.default_rng(seed)
    gaps = rng.exponential(1 / rate, max(count, int(2 * rate * seconds) + 1))
    arrivals = np.cumsum(gaps)
    arrivals = arrivals[: max(count, int(np.searchsorted(arrivals, seconds)))].tolist()
    latencies: list[float] = []
    waiting: queue.SimpleQueue[int | None] = queue.SimpleQueue()
    begun = time.perf_counter()

    def serve() -> None:
        while (number := waiting.get()) is not None:
            answer((number,))
            latencies.append(1000 * (time.perf_counter() - begun - arrivals[number]))

    servers = [threading.Thread(target=serve, daemon=True) for _ in range(concurrency)]
    for server in servers:
        server.start()
    for number, arrival in enumerate(arrivals):
        time.sleep(max(0.0, begun + arrival - time.perf_counter()))
        waiting.put(number)
    for _ in servers:
        waiting.put(None)
    for server in servers:
        server.join()
    return Loaded(latencies, len(latencies), time.perf_counter() - begun)


def _in_threads(work: Callable[[], None], count: int) -> None:
    if count == 1:
        work()
        return
    threads = [threading.Thread(target=work, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
