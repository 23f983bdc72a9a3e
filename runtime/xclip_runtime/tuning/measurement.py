"""Measurement of candidates in interleaved rounds, so that a disturbance of the machine meets all of them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from xclip_runtime.errors import DeviceError
from xclip_runtime.tuning.engine import EngineTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.tuning.candidates import Candidate


FIRST_SHARE = 0.5
"""Largest share of the time left that a candidate may take to load and to run its first clip."""


class Runner(Protocol):
    """Engine of a candidate, as `xclip_runtime.tuning.engine.EngineProcess`."""

    facts: Mapping[str, Any]
    """Provider, load time, memory and peak, and the ``seconds`` and ``logits`` of clip 0."""

    def run(self, clip: int, seconds: float) -> Mapping[str, Any]:
        """Run a clip; return its ``seconds`` and ``logits``."""

    def close(self) -> None:
        """End the engine."""


@dataclass
class Measurement:
    """Results of a candidate."""

    candidate: Candidate
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Provider, load time, memory and peak."""
    seconds: list[float] = field(default_factory=list)
    logits: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    """Logits of each clip that was run, float64 (N,)."""
    problem: str | None = None
    """Reason for which it cannot be chosen."""

    @property
    def median(self) -> float:
        """Median time of a clip, in seconds; the first, which warms up, counts only if it is alone."""
        return statistics.median(self.seconds[1:] or self.seconds)


@dataclass(frozen=True)
class Rounds:
    """Measurements of all candidates.

    Attributes:
        measurements: One for each candidate.
        done: Complete rounds.
        planned: Rounds without the end of the budget.
        seconds: Time that it took.
    """

    measurements: tuple[Measurement, ...]
    done: int
    planned: int
    seconds: float

    @property
    def cut(self) -> bool:
        """True if the budget ended first."""
        return self.done < self.planned


def measure(
    candidates: Sequence[Candidate],
    start: Callable[[Candidate, float], Runner],
    *,
    clips: int,
    rounds: int,
    budget: float,
    together: bool,
    progress: Callable[[str], object] = lambda _: None,
    clock: Callable[[], float] = time.monotonic,
) -> Rounds:
    """Run one clip on every candidate in turn, the next clip in the next round, until the budget ends.

    Args:
        candidates: Settings to measure.
        start: Starts the engine of a candidate, within seconds.
        clips: Number of calibration clips.
        rounds: Rounds to run.
        budget: Time for all of it, in seconds.
        together: Keep all engines in memory; otherwise each is started anew for every turn.
        progress: Called with a line before each turn.
        clock: Returns seconds.
    """
    begun, rows = clock(), [Measurement(candidate) for candidate in candidates]
    running: dict[int, Runner] = {}
    done = 0
    try:
        for number in range(rounds):
            for index, row in enumerate(rows):
                left = begun + budget - clock()
                if row.problem is not None:
                    continue
                if left <= 0:
                    return _end(rows, done, rounds, budget, clock() - begun)
                progress(f"round {number + 1} of {rounds}, {left:.0f} s left: {row.candidate}")
                try:
                    # Of the first turns, none may take all that is left for the others.
                    share = 1 if row.seconds or index == len(rows) - 1 else FIRST_SHARE
                    runner = running.get(index) or start(row.candidate, share * left)
                    running[index] = runner
                    if row.facts:
                        _take(row, number % clips, runner.run(number % clips, begun + budget - clock()))
                    else:
                        row.facts = runner.facts
                        _take(row, 0, runner.facts)
                except EngineTimeoutError as error:
                    if row.seconds:
                        return _end(rows, done, rounds, budget, clock() - begun)
                    row.problem = str(error)
                except DeviceError as error:
                    row.problem = str(error)
                if index in running and (row.problem is not None or not together):
                    running.pop(index).close()
            done = number + 1
        return _end(rows, done, rounds, budget, clock() - begun)
    finally:
        for runner in running.values():
            runner.close()


def _take(row: Measurement, clip: int, answer: Mapping[str, Any]) -> None:
    logits = np.array(answer["logits"], np.float64)
    if not np.isfinite(logits).all():
        row.problem = "its logits are not finite: leave this engine out"
        return
    row.seconds.append(answer["seconds"])
    row.logits[clip] = logits


def _end(rows: Sequence[Measurement], done: int, planned: int, budget: float, seconds: float) -> Rounds:
    for row in rows:
        if row.problem is None and not row.seconds:
            row.problem = f"not measured, the budget of {budget:.0f} s was over: give a larger --budget"
    return Rounds(tuple(rows), done, planned, seconds)
