"""Distributions of latencies, without quantiles that the number of samples cannot carry."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

RESAMPLES = 2000


def quantile(values: Sequence[float], q: float) -> float | None:
    """The nearest-rank quantile; None where fewer than ``1 / (1 - q)`` values leave none beyond it.

    So a p90 needs 10 values and a p99 needs 100.
    """
    if not values or len(values) * (1 - q) < 1 - 1e-9:
        return None
    return float(sorted(values)[math.ceil(q * len(values) - 1e-9) - 1])


def summary(milliseconds: Sequence[float]) -> dict[str, Any]:
    """n, mean, least, largest, and the quantiles that n can carry; all in milliseconds."""
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
    """95 % percentile-bootstrap interval of ``statistic(b) / statistic(a)`` (Efron 1979, doi 10.1214/aos/1176344552).

    Deterministic: the resampling is seeded.

    Args:
        a: Independent measurements of the first run.
        b: Independent measurements of the second.
        statistic: Of a one-dimensional array, such as ``np.median``.
    """
    rng = np.random.default_rng(0)
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    ratios = [
        statistic(rng.choice(second, len(second))) / statistic(rng.choice(first, len(first))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)
