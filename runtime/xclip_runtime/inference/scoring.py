"""Scores of clips: batched logits, softmax, view averaging and the best labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xclip_runtime.results import LabelScore, TextScore, Timings
from xclip_runtime.util.arguments import check_count

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from xclip_runtime.inference.bound_model import BoundModel, Texts
    from xclip_runtime.video import Clip


class ViewScores(NamedTuple):
    """Means over the views of one video: probabilities, float64 (N,), and logits, float32 (N,)."""

    probs: NDArray[np.float64]
    logits: NDArray[np.float32]


def score_clips(
    bound: BoundModel, texts: Texts, clips: Sequence[Clip], batch_size: int
) -> Iterator[tuple[ViewScores, Timings]]:
    """Score at least one clip, in runs of ``batch_size`` views: twelve views need no more memory than one.

    A run's time is shared equally by its views.
    """
    views = [view for clip in clips for view in views_of(clip)]
    runs = [
        bound.scores(np.stack(views[start : start + batch_size]), texts) for start in range(0, len(views), batch_size)
    ]
    logits = np.concatenate([run.logits for run in runs])
    vision_ms = sum(run.vision_ms for run in runs) / len(views)
    prompt_ms = sum(run.prompt_ms for run in runs) / len(views)
    ends = np.cumsum([len(views_of(clip)) for clip in clips])
    for clip, part in zip(clips, np.split(logits, ends[:-1]), strict=True):
        stages = clip.decode_ms, clip.prepare_ms, vision_ms * len(part), prompt_ms * len(part)
        yield average_views(part), Timings(*stages, total=sum(stages))


def views_of(clip: Clip) -> NDArray[np.uint8]:
    """Return the views of a clip, uint8 (V, T, size, size, 3)."""
    return clip.frames if clip.frames.ndim == 5 else clip.frames[None]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return probabilities over the last axis, float64 of the same shape."""
    exp = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    probs: NDArray[np.float64] = exp / exp.sum(axis=-1, keepdims=True)
    return probs


def average_views(logits: NDArray[np.float32]) -> ViewScores:
    """Average probabilities, as microsoft/VideoX does in testing, and logits of at least one view, (V, N)."""
    return ViewScores(softmax(logits).mean(axis=0), logits.mean(axis=0))


def best_labels(
    names: Sequence[str], probs: NDArray[np.float64], logits: NDArray[np.float32], top_k: int | None
) -> tuple[LabelScore, ...]:
    """Return the ``top_k`` most probable labels, None for all, best first; equal ones are ordered by their logits."""
    order = best_first(probs, logits)[:top_k]
    return tuple(LabelScore(names[i], float(probs[i]), float(logits[i])) for i in order)


def best_first(probs: NDArray[Any], logits: NDArray[Any]) -> NDArray[np.int64]:
    """Return the indices of N labels in descending order of probability; equal ones are ordered by their logits."""
    return np.lexsort((-logits, -probs))


def text_scores(
    texts: Sequence[str], probs: NDArray[np.float64], logits: NDArray[np.float32], logit_scale: float
) -> tuple[TextScore, ...]:
    """Return the scores of texts in their order; ``logit_scale`` is the factor between cosine and logit."""
    scores = zip(texts, probs.tolist(), logits.tolist(), strict=True)
    return tuple(TextScore(text, prob, logit, logit / logit_scale) for text, prob, logit in scores)


def check_top_k(top_k: int | None) -> None:
    """Raise a ValueError for a number of labels that is not a whole one from 1 on."""
    check_count("top_k", top_k, "all labels")
