"""Throughput and latency over batch size, threads, concurrency and arrival rate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from xclip_runtime.bench.load import closed_loop, open_loop, summary
from xclip_runtime.util.cpus import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable

    from xclip_runtime.bench.load import LoadResult
    from xclip_runtime.bench.plan import Sweep
    from xclip_runtime.bench.workload import Workload
    from xclip_runtime.model import XClip

BATCHES = (1, 2, 4, 8)
CONCURRENCIES = (1, 2, 4)
LOADS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
"""Arrival rates, as shares of the rate of a closed loop."""


def run_sweep(
    workload: Workload, sweep: Sweep, load: Callable[..., XClip], *, seconds: float, count: int
) -> list[dict[str, Any]]:
    """Measure the points of one sweep, each for a minimum time and count; ``load`` loads the model with other options.

    Batches are of clips in memory, and their latencies those of a whole batch; latencies under a rate of arrivals count
    from the scheduled start.
    """
    points = []
    if sweep == "batch":
        for size in BATCHES:
            batched = replace(workload, model=load(batch_size=size), input="clip", batch_size=size)
            batched.warm_up()
            done = closed_loop(batched.answer, seconds=seconds, count=max(1, count // size), samples_per_query=size)
            points.append(_point("batch", size, done))
    elif sweep == "threads":
        for threads in _thread_counts():
            other = replace(workload, model=load(threads=threads))
            other.warm_up()
            points.append(_point("threads", threads, closed_loop(other.answer, seconds=seconds, count=count)))
    elif sweep == "concurrency":
        for n in CONCURRENCIES:
            done = closed_loop(workload.answer, seconds=seconds, count=count, concurrency=n)
            points.append(_point("concurrency", n, done))
    else:
        capacity = closed_loop(workload.answer, seconds=seconds, count=count).rate
        for share in LOADS:
            done = open_loop(workload.answer, rate=share * capacity, seconds=seconds, count=count)
            points.append({"load": share, **_point("rate", share * capacity, done)})
    return points


def _thread_counts() -> list[int]:
    """Return the powers of two up to the number of CPUs that this process may use, and that number."""
    cpus = available_cpus()
    return sorted({*(2**k for k in range(cpus.bit_length())), cpus})


def _point(name: str, value: float, done: LoadResult) -> dict[str, Any]:
    return {name: value, "samples_per_second": done.rate, "latency_ms": summary(done.latencies_ms)}
