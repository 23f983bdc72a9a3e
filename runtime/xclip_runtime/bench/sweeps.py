"""How throughput and latency change with batch, threads, concurrency and arrival rate."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, get_args

from xclip_runtime.bench.latency import summary
from xclip_runtime.bench.load import closed_loop, open_loop
from xclip_runtime.util.cpus import available_cpus

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from xclip_runtime.bench.load import Loaded
    from xclip_runtime.bench.workload import Workload
    from xclip_runtime.model import XClip

Sweep = Literal["batch", "threads", "concurrency", "rate"]
SWEEPS: tuple[Sweep, ...] = get_args(Sweep)
BATCHES = (1, 2, 4, 8)
CONCURRENCIES = (1, 2, 4)
LOADS = (0.25, 0.5, 0.7, 0.8, 0.9, 1.0)
"""Arrival rates, as shares of what a closed loop reaches."""


def thread_counts() -> list[int]:
    """1, 2, 4 … up to the CPUs that this process may use, and those."""
    cpus = available_cpus()
    return sorted({*(2**k for k in range(cpus.bit_length())), cpus})


def sweep_batch(workload: Workload, *, seconds: float, count: int) -> list[dict[str, Any]]:
    """Clips that go through the vision graph at once; latencies are those of a whole batch."""
    points = []
    for batch in BATCHES:
        batched = replace(workload, input="clip", batch=batch)
        batched.warm_up()
        done = closed_loop(batched.answer, seconds=seconds, count=max(1, count // batch), samples_per_query=batch)
        points.append(_point("batch", batch, done))
    return points


def sweep_threads(
    workload: Workload, load: Callable[[int], XClip], *, seconds: float, count: int
) -> list[dict[str, Any]]:
    """Intra-op threads; ``load`` makes the model anew for each number."""
    points = []
    for threads in thread_counts():
        other = replace(workload, model=load(threads))
        other.warm_up()
        points.append(_point("threads", threads, closed_loop(other.answer, seconds=seconds, count=count)))
    return points


def sweep_concurrency(workload: Workload, *, seconds: float, count: int) -> list[dict[str, Any]]:
    """Queries in flight at a time, in one session."""
    return [
        _point("concurrency", n, closed_loop(workload.answer, seconds=seconds, count=count, concurrency=n))
        for n in CONCURRENCIES
    ]


def sweep_rate(workload: Workload, *, seconds: float, count: int) -> list[dict[str, Any]]:
    """Random arrivals, ever denser; latencies count from the intended start."""
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
