"""Scores of clips: batched logits, softmax, view averaging and the best labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xclip_runtime.results import LabelScore, TextScore, Timings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xclip_runtime.inference.bound_model import BoundModel, Texts
    from xclip_runtime.video import Clip


class ClipScores(NamedTuple):
    """View-averaged scores of one clip, and the time that they took.

    Attributes:
        probs: float64 (N,).
        logits: float32 (N,).
        timings_ms: Of the clip; a batch's time is shared equally by its views.
    """

    probs: NDArray[np.float64]
    logits: NDArray[np.float32]
    timings_ms: Timings


class ViewScores(NamedTuple):
    """View-averaged scores of one video.

    Attributes:
        probs: float64 (N,), the mean of the views' probabilities.
        logits: float32 (N,), the mean of the views' logits.
    """

    probs: NDArray[np.float64]
    logits: NDArray[np.float32]


def score_clips(bound: BoundModel, texts: Texts, clips: Sequence[Clip], batch_size: int) -> list[ClipScores]:
    """Score clips in batches of views.

    Args:
        bound: The model.
        texts: Its label embeddings.
        clips: At least one, with any number of views each.
        batch_size: Views per run, so that twelve views need no more memory than one.
    """
    views = [view for clip in clips for view in views_of(clip)]
    runs = [
        bound.scores(np.stack(views[start : start + batch_size]), texts) for start in range(0, len(views), batch_size)
    ]
    logits = np.concatenate([run.logits for run in runs])
    vision_ms = sum(run.vision_ms for run in runs) / len(views)
    prompt_ms = sum(run.prompt_ms for run in runs) / len(views)
    ends = np.cumsum([len(views_of(clip)) for clip in clips])
    return [
        ClipScores(*average_views(part), _timings(clip, vision_ms * len(part), prompt_ms * len(part)))
        for clip, part in zip(clips, np.split(logits, ends[:-1]), strict=True)
    ]


def views_of(clip: Clip) -> NDArray[np.uint8]:
    """Return the views of a clip, uint8 (V, T, size, size, 3)."""
    return clip.frames if clip.frames.ndim == 5 else clip.frames[None]


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


def text_scores(
    texts: Sequence[str], probs: NDArray[np.float64], logits: NDArray[np.float32], logit_scale: float
) -> tuple[TextScore, ...]:
    """Return the scores of texts in their order.

    Args:
        texts: N texts.
        probs: float64 (N,).
        logits: float32 (N,).
        logit_scale: Factor between cosine and logit, exp of the checkpoint's parameter of this name.
    """
    scores = zip(texts, probs.tolist(), logits.tolist(), strict=True)
    return tuple(TextScore(text, prob, logit, logit / logit_scale) for text, prob, logit in scores)


def check_top_k(top_k: int | None) -> None:
    """Refuse a number of labels below 1.

    Raises:
        ValueError: ``top_k`` is below 1.
    """
    if top_k is not None and top_k < 1:
        message = f"top_k is {top_k}: give at least 1, or None for all labels"
        raise ValueError(message)


def _timings(clip: Clip, vision_ms: float, prompt_ms: float) -> Timings:
    total = clip.decode_ms + clip.prepare_ms + vision_ms + prompt_ms
    return Timings(clip.decode_ms, clip.prepare_ms, vision_ms, prompt_ms, total)
