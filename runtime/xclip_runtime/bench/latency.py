"""Latency distributions, without quantiles that the number of samples cannot support."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000


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
        "p50": quantile(milliseconds, 0.5),
        "p90": quantile(milliseconds, 0.9),
        "p95": quantile(milliseconds, 0.95),
        "p99": quantile(milliseconds, 0.99),
        "max": max(milliseconds, default=None),
    }


def ratio_interval(
    a: Sequence[float], b: Sequence[float], statistic: Callable[[NDArray[np.float64]], float]
) -> tuple[float, float]:
    """Compute the 95 % percentile-bootstrap interval of ``statistic(b) / statistic(a)``, with seeded resampling.

    Source: Efron 1979, doi 10.1214/aos/1176344552.

    Args:
        a: Independent measurements of the first run.
        b: Independent measurements of the second.
        statistic: Statistic of a one-dimensional array, such as ``np.median``.
    """
    rng = np.random.default_rng(0)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    ratios = [
        statistic(rng.choice(second, len(second))) / statistic(rng.choice(first, len(first))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)
