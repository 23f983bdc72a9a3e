"""Statistics of the models of the Open Inference Protocol, by Triton's names."""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass
class Duration:
    """Total of durations."""

    count: int = 0
    ns: int = 0

    def add(self, ms: float, count: int = 1) -> None:
        """Add `count` events of `ms` milliseconds in total."""
        self.count += count
        self.ns += round(1e6 * ms)


@dataclass
class InferStatistics:
    """Requests, and the stages of the successful ones."""

    success: Duration = field(default_factory=Duration)
    fail: Duration = field(default_factory=Duration)
    queue: Duration = field(default_factory=Duration)
    compute_input: Duration = field(default_factory=Duration)
    compute_infer: Duration = field(default_factory=Duration)
    compute_output: Duration = field(default_factory=Duration)


@dataclass
class Statistics:
    """Statistics of one model."""

    inference_count: int = 0
    """Clips or videos that were answered."""
    last_inference: int = 0
    """Time of the last answer, milliseconds since 1970."""
    inference_stats: InferStatistics = field(default_factory=InferStatistics)

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request as success or failure."""
        start = time.perf_counter()
        outcome = self.inference_stats.fail
        try:
            yield
            outcome = self.inference_stats.success
            self.last_inference = round(1000 * time.time())
        finally:
            outcome.add(1000 * (time.perf_counter() - start))

    def stages(self, timings_ms: Mapping[str, float], *, prompt_ms: float, count: int) -> None:
        """Count the stages of `count` clips or videos that ran together."""
        stats = self.inference_stats
        self.inference_count += count
        stats.queue.add(timings_ms["queue"])
        stats.compute_input.add(timings_ms["decode"] + timings_ms["prepare"])
        stats.compute_infer.add(timings_ms["vision"] + prompt_ms)

    def to_dict(self, name: str, version: str, batches: Mapping[int, Duration]) -> dict[str, Any]:
        """Return the fields of ModelStatistics.

        Args:
            name: Name of the model.
            version: Version of the model.
            batches: Runs of the vision graph by their batch size.
        """
        return {
            "name": name,
            "version": version,
            **asdict(self),
            "execution_count": sum(runs.count for runs in batches.values()),
            "batch_stats": [
                {"batch_size": size, "compute_infer": asdict(runs)} for size, runs in sorted(batches.items())
            ],
        }
