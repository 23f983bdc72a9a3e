"""Logits to answers: softmax, view averaging and the best labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xclip_runtime.results import LabelScore

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


class ViewScores(NamedTuple):
    """View-averaged scores of one video.

    Attributes:
        probs: float64 (N,), the mean of the views' probabilities.
        logits: float32 (N,), the mean of the views' logits.
    """

    probs: NDArray[np.float64]
    logits: NDArray[np.float32]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities over the last axis, float64 of the same shape."""
    exp = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probs: NDArray[np.float64] = exp / exp.sum(axis=-1, keepdims=True)
    return probs


def average_views(logits: NDArray[np.float32]) -> ViewScores:
    """Average the views of one video: their probabilities, as microsoft/VideoX does in testing, and their logits.

    Args:
        logits: float32 (V, N), one row per view, V at least 1.
    """
    return ViewScores(softmax(logits).mean(axis=0), logits.mean(axis=0))


def best_labels(
    names: Sequence[str], probs: NDArray[np.float64], logits: NDArray[np.float32], top_k: int | None
) -> tuple[LabelScore, ...]:
    """Return the most probable labels, best first; equal ones are ordered by their logits.

    Args:
        names: N labels.
        probs: float64 (N,).
        logits: float32 (N,).
        top_k: Number of labels, at least 1; None for all.
    """
    order = np.lexsort((-logits, -probs))[:top_k]
    return tuple(LabelScore(names[i], float(probs[i]), float(logits[i])) for i in order)


def check_top_k(top_k: int | None) -> None:
    """Refuse a number of labels below 1.

    Raises:
        ValueError: ``top_k`` is below 1.
    """
    if top_k is not None and top_k < 1:
        message = f"top_k is {top_k}: give at least 1, or None for all labels"
        raise ValueError(message)
