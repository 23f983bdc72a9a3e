"""Retrieval metrics: recall at k and median rank, text to video and video to text.

Recall at k is the share of queries with a right answer among the first k; the median rank is that of the first right
answer, 1 at best. Equal texts are one query. An answer that scores as high as the right one counts as before it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.search.store import absolute

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from xclip_runtime.search.captions import Caption
    from xclip_runtime.search.video_index import VideoIndex


@dataclass(frozen=True)
class Recall:
    """Metrics of one direction."""

    r1: float
    """Recall at 1, 0 to 1."""
    r5: float
    """Recall at 5."""
    r10: float
    """Recall at 10."""
    median_rank: float
    """Median over the queries of the rank of the first right answer."""
    n: int
    """Number of queries."""

    @classmethod
    def of(cls, ranks: NDArray[np.int64]) -> Recall:
        """Compute from the rank of each query's first right answer, counted from 1, int64 (n,)."""
        r1, r5, r10 = (float((ranks <= k).mean()) for k in (1, 5, 10))
        return cls(r1, r5, r10, float(np.median(ranks)), len(ranks))


@dataclass(frozen=True)
class Directions:
    """Metrics of both directions."""

    text_to_video: Recall
    video_to_text: Recall

    @classmethod
    def of(cls, scores: NDArray[np.float32], right: NDArray[np.bool_]) -> Directions:
        """Compute from scores and right answers, both (texts, videos)."""
        return cls(Recall.of(first_ranks(scores, right)), Recall.of(first_ranks(scores.T, right.T)))


@dataclass(frozen=True)
class Retrieval:
    """Retrieval metrics of a model on captioned videos."""

    texts: int
    """Number of different texts."""
    videos: int
    prompted: Directions
    """Ranked by the model's logits, as the hits of a search are."""
    cosine: Directions
    """Ranked by the cosine with the unprompted text, as the shortlist of a search is."""

    def to_dict(self) -> dict[str, Any]:
        """Return the ``index eval --json`` document, without the model."""
        both = asdict(self)
        return {"texts": self.texts, "videos": self.videos, **both["prompted"], "cosine": both["cosine"]}


def first_ranks(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank the best right answer of each row of (N, M) from 1, int64 (N,); every row has one, higher scores win."""
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = 1 + ((scores >= best) & ~right).sum(axis=1)
    return ranks


def evaluate(index: VideoIndex, captions: Sequence[Caption]) -> Retrieval:
    """Score every text against every video exactly; the best window of a video counts."""
    texts = list(dict.fromkeys(caption.text for caption in captions))
    videos = list(dict.fromkeys(absolute(caption.video) for caption in captions))
    right = np.zeros((len(texts), len(videos)), np.bool_)
    text_of, video_of = ({name: i for i, name in enumerate(names)} for names in (texts, videos))
    for caption in captions:
        right[text_of[caption.text], video_of[absolute(caption.video)]] = True
    logits, cosines = score_pairs(index, texts, videos)
    return Retrieval(len(texts), len(videos), Directions.of(logits, right), Directions.of(cosines, right))


def score_pairs(
    index: VideoIndex, texts: Sequence[str], videos: Sequence[str]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Score N texts against M videos, absolute paths, each by its best window; minus infinity if not in the index.

    Returns logits, and cosines with the unprompted texts, both float32 (N, M).
    """
    text_embeds = index.model.text_embeds(texts)
    units = text_embeds / np.linalg.norm(text_embeds, axis=1, keepdims=True)
    logits, cosines = (np.full((len(texts), len(videos)), -np.inf, np.float32) for _ in range(2))
    for column, video in enumerate(videos):
        for _, features in index.store.features(index.store.windows(video)):
            prompted = index.model.prompt_logits(features, text_embeds)
            logits[:, column] = np.maximum(logits[:, column], prompted)
            cosines[:, column] = np.maximum(cosines[:, column], units @ features.video_embeds)
    return logits, cosines
