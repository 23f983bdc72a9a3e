"""Smooth the probabilities of windows, and detect events: labels that hold for a while."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xclip_runtime.results import Event
from xclip_runtime.util.arguments import check_numbers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from xclip_runtime.results import WindowResult


class Smoother:
    """Exponential smoothing in time rather than in windows, so that dropped windows do not slow it down.

    s ← s + (1 - exp(-Δt / smooth)) (p - s), where Δt is the time between the ends of two windows.

    Args:
        smooth: Time constant, seconds; 0 for no smoothing.

    Raises:
        ValueError: ``smooth`` is negative.
    """

    def __init__(self, smooth: float) -> None:
        check_numbers(smooth=smooth)
        if not 0 <= smooth < math.inf:
            message = f"the smoothing is {smooth} s: give 0 or more"
            raise ValueError(message)
        self._smooth = smooth
        self._probs: NDArray[np.float64] | None = None
        self._end = 0.0

    def update(self, probs: NDArray[np.float64], end: float, *, anew: bool = False) -> NDArray[np.float64]:
        """Add the probabilities of a window.

        Args:
            probs: float64 (N,).
            end: End of the window, seconds.
            anew: Forget the windows before.

        Returns:
            Smoothed probabilities, float64 (N,).
        """
        if self._probs is None or anew or self._smooth == 0:
            self._probs = probs
        else:
            self._probs = self._probs - math.expm1(-(end - self._end) / self._smooth) * (probs - self._probs)
        self._end = end
        return self._probs


@dataclass
class _Run:
    """Consecutive windows with a label over the threshold."""

    start: float
    end: float
    prob: float
    reported: bool = False


class EventDetector:
    """Detector of labels whose probability stays at or above a threshold.

    Args:
        threshold: Probability, in (0, 1].
        min_duration: Seconds for which the label must hold, from the start of the first window to the end of the last.

    Raises:
        ValueError: ``threshold`` or ``min_duration`` is out of its range.
    """

    def __init__(self, threshold: float = 0.5, min_duration: float = 0.0) -> None:
        check_numbers(threshold=threshold, min_duration=min_duration)
        if not 0 < threshold <= 1:
            message = f"the threshold is {threshold}: give a probability above 0 and at most 1"
            raise ValueError(message)
        if not 0 <= min_duration < math.inf:
            message = f"the minimum duration is {min_duration} s: give 0 or more"
            raise ValueError(message)
        self._threshold = threshold
        self._min_duration = min_duration
        self._runs: dict[str, _Run] = {}

    def update(self, result: WindowResult) -> list[Event]:
        """Add a window; its labels must include all at or above the threshold.

        Returns:
            Events that ended with the window before, and events that have just lasted long enough, with end None.
        """
        over = {score.label: score.prob for score in result.labels if score.prob >= self._threshold}
        # A gap may hide the end of a label, so no event spans one.
        ended = self._end(set(self._runs) if result.gap else self._runs.keys() - over.keys())
        return [*ended, *self._begin(over, result)]

    def finish(self) -> list[Event]:
        """End the stream; return the events that were still going on."""
        return self._end(set(self._runs))

    def _begin(self, over: dict[str, float], result: WindowResult) -> list[Event]:
        begun = []
        for label, prob in over.items():
            run = self._runs.setdefault(label, _Run(result.start, result.end, prob))
            run.end, run.prob = result.end, max(run.prob, prob)
            if not run.reported and run.end - run.start >= self._min_duration:
                run.reported = True
                begun.append(Event(label, run.start, None, run.prob))
        return begun

    def _end(self, labels: set[str]) -> list[Event]:
        runs = [(label, self._runs.pop(label)) for label in sorted(labels)]
        return [Event(label, run.start, run.end, run.prob) for label, run in runs if run.reported]
