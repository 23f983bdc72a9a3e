"""Throughput and latency over batch size, threads, concurrency and arrival rate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xclip_runtime.bench.latency import summary
from xclip_runtime.bench.load import closed_loop, open_loop
from xclip_runtime.util.cpus import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xclip_runtime.bench.load import Loaded
    from xclip_runtime.bench.workload import Workload
    from xclip_runtime.model import XClip

BATCHES = (1, 2, 4, 8)
CONCURRENCIES = (1, 2, 4)
LOADS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
"""Arrival rates, as shares of the rate of a closed loop."""


def thread_counts() -> list[int]:
    """Powers of two up to the number of CPUs that this process may use, and that number."""
    cpus = available_cpus()
    return sorted({*(2**k for k in range(cpus.bit_length())), cpus})


def sweep_batch(
    workload: Workload, load: Callable[[int], XClip], *, seconds: float, count: int
) -> list[dict[str, Any]]:
    """Measure batch sizes on clips in memory; latencies are those of a whole batch.

    Args:
        workload: The samples.
        load: Loads the model for a batch size.
        seconds: Minimum duration of each point.
        count: Minimum number of clips of each point.
    """
    points = []
    for size in BATCHES:
        batched = replace(workload, model=load(size), input="clip", batch_size=size)
        batched.warm_up()
        done = closed_loop(batched.answer, seconds=seconds, count=max(1, count // size), samples_per_query=size)
        points.append(_point("batch", size, done))
    return points


def sweep_threads(
    workload: Workload, load: Callable[[int], XClip], *, seconds: float, count: int
) -> list[dict[str, Any]]:
    """Measure numbers of intra-op threads; ``load`` loads the model for a number."""
    points = []
    for threads in thread_counts():
        other = replace(workload, model=load(threads))
        other.warm_up()
        points.append(_point("threads", threads, closed_loop(other.answer, seconds=seconds, count=count)))
    return points


def sweep_concurrency(workload: Workload, *, seconds: float, count: int) -> list[dict[str, Any]]:
    """Measure numbers of queries in flight, in one session."""
    return [
        _point("concurrency", n, closed_loop(workload.answer, seconds=seconds, count=count, concurrency=n))
        for n in CONCURRENCIES
    ]


def sweep_rate(workload: Workload, *, seconds: float, count: int) -> list[dict[str, Any]]:
    """Measure rates of random arrivals; latencies count from the intended start."""
    capacity = closed_loop(workload.answer, seconds=seconds, count=count).rate
    points = []
    for load in LOADS:
        rate = load * capacity
        done = open_loop(workload.answer, rate=rate, seconds=seconds, count=count)
        points.append({"load": load, **_point("rate", rate, done)})
    return points


def _point(name: str, value: float, done: Loaded) -> dict[str, Any]:
    latencies: Sequence[float] = done.latencies_ms
    return {name: value, "samples_per_second": done.rate, "latency_ms": summary(latencies)}
