"""Confidence intervals and significance tests for shares, each with its source."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959964
"""Quantile of the normal distribution for 95 % intervals."""


@dataclass(frozen=True)
class Share:
    """Share of n cases with its 95 % interval."""

    right: int
    n: int
    value: float
    """``right / n``; NaN if n is 0, with the interval from 0 to 1."""
    low: float
    high: float


def wilson(right: int, n: int) -> Share:
    """Compute a share with Wilson's score interval at 95 % (Wilson 1927, doi 10.1080/01621459.1927.10502953)."""
    if not 0 <= right <= n:
        message = f"right is {right} and n is {n}: right must be in [0, n]"
        raise ValueError(message)
    if n == 0:
        return Share(0, 0, math.nan, 0.0, 1.0)
    share, z2 = right / n, Z95 * Z95
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return Share(right, n, share, max(0.0, middle - half), min(1.0, middle + half))


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's exact test (McNemar 1947, doi 10.1007/BF02295996).

    The null hypothesis is that two classifiers are right equally often on the same cases: where only one is right,
    each of the two is with probability ½, so the smaller count is binomial.
    """
    n, fewer = only_first + only_second, min(only_first, only_second)
    # Integers up to the division, so that a thousand cases neither overflow nor underflow.
    ways = tail = 1
    for k in range(fewer):
        ways = ways * (n - k) // (k + 1)
        tail += ways
    return min(1.0, 2 * tail / (1 << n))
