"""How well texts find their videos, and videos their texts.

Recall at k is the share of queries with a right answer among the first k, the median rank is that of the first right
answer, 1 at best. Texts that are the same are one query. What scores as high as the right answer counts as before it.
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
    """Figures of one direction."""

    r1: float
    """Share of queries whose first answer is right."""
    r5: float
    """Share with a right answer among the first five."""
    r10: float
    """Share with a right answer among the first ten."""
    median_rank: float
    """Of the first right answer, over all queries."""
    n: int
    """Queries."""

    @classmethod
    def of(cls, ranks: NDArray[np.int64]) -> Recall:
        """From the rank of each query's first right answer, counted from 1, int64 (n,)."""
        r1, r5, r10 = (float((ranks <= k).mean()) for k in (1, 5, 10))
        return cls(r1, r5, r10, float(np.median(ranks)), len(ranks))


@dataclass(frozen=True)
class Directions:
    """Figures of both directions."""

    text_to_video: Recall
    video_to_text: Recall

    @classmethod
    def of(cls, scores: NDArray[np.float32], right: NDArray[np.bool_]) -> Directions:
        """From scores and what belongs together, both (texts, videos)."""
        return cls(Recall.of(first_ranks(scores, right)), Recall.of(first_ranks(scores.T, right.T)))


@dataclass(frozen=True)
class Retrieval:
    """Retrieval figures of a model on captioned videos."""

    texts: int
    """Different texts."""
    videos: int
    prompted: Directions
    """By the model's logits, as a search ranks in the end."""
    cosine: Directions
    """By the cosine with the unprompted text, as a shortlist is made."""

    def to_dict(self) -> dict[str, Any]:
        """The ``index eval --json`` document, without the model."""
        both = asdict(self)
        return {"texts": self.texts, "videos": self.videos, **both["prompted"], "cosine": both["cosine"]}


def first_ranks(scores: NDArray[np.float32], right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rank of the best right answer in each row, counted from 1, int64 (N,).

    Args:
        scores: (N, M), higher is better.
        right: (N, M), at least one in each row.
    """
    best = np.where(right, scores, -np.inf).max(axis=1, keepdims=True)
    ranks: NDArray[np.int64] = 1 + ((scores >= best) & ~right).sum(axis=1)
    return ranks


def evaluate(index: VideoIndex, captions: Sequence[Caption]) -> Retrieval:
    """Score every text against every video exactly. Of a video in windows, the best window counts.

    Args:
        index: Holds all the videos of the captions.
        captions: Who belongs to whom; texts of any number of videos may be the same.

    Raises:
        LabelsError: A text is too long.
    """
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
    """Logits, and cosines with the unprompted texts, of every text with every video's best window.

    Args:
        index: Holds the videos; one that it does not hold scores minus infinity.
        texts: N texts.
        videos: M absolute paths.

    Returns:
        Both float32 (N, M).
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
