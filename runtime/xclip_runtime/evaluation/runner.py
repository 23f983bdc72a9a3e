"""Run the published protocol: decode each video once, and classify its frames with every model."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import tee
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import XClipError
from xclip_runtime.video.load import Reading
from xclip_runtime.video.processes import read_ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from xclip_runtime.evaluation.datasets import Sample
    from xclip_runtime.model import XClip
    from xclip_runtime.results import LabelScore
    from xclip_runtime.video import Clip
    from xclip_runtime.video.processes import ReadVideo

KEPT = 5
"""Labels kept of each answer, for top-5."""


@dataclass(frozen=True)
class Answer:
    """Answer of one model for one video."""

    rank: int
    """Rank of the true label by probability, from 1."""
    labels: tuple[str, ...]
    """Five best labels, best first."""
    probs: tuple[float, ...]
    """Their probabilities, averaged over the views."""

    @property
    def top(self) -> str:
        """Best label."""
        return self.labels[0]


@dataclass(frozen=True)
class Outcome:
    """Answers for one video, or the error of reading it."""

    video: str
    label: str
    answers: Mapping[str, Answer]
    """Answers by precision; empty if the video could not be read."""
    logit_error: float | None = None
    """Largest |Δlogit| between the first and the second model, over all labels."""
    error: Mapping[str, str] | None = None
    """Type and message of the error, if the video could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Convert to lists, strings and numbers, without empty fields."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Outcome:
        """Restore from `to_dict`."""
        answers = {
            precision: Answer(given["rank"], tuple(given["labels"]), tuple(given["probs"]))
            for precision, given in document.get("answers", {}).items()
        }
        return cls(document["video"], document["label"], answers, document.get("logit_error"), document.get("error"))


def evaluate(
    models: Sequence[XClip], samples: Iterable[Sample], *, reading: Reading | None = None, workers: int | None = None
) -> Iterator[Outcome]:
    """Classify every sample with every model, in the samples' order, while the next videos are read.

    The models, one or two, share bundle and profile but not precision. A video is read once, with the first one's
    profile; its label is spelt as theirs, see `xclip_runtime.evaluation.datasets.with_labels_of`.
    """
    first = models[0]
    ahead, samples = tee(samples)

    def read(sample: Sample, read_video: ReadVideo) -> Clip:
        return read_video(sample.video, first.bundle.num_frames, first.transform, reading or Reading())

    def answer(pairs: Sequence[tuple[Sample, Clip]]) -> list[Outcome]:
        return [_outcome(models, sample, clip) for sample, clip in pairs]

    for outcome, sample in zip(read_ahead(ahead, read, answer, workers=workers), samples, strict=True):
        if isinstance(outcome, XClipError):
            yield Outcome(sample.video, sample.label, {}, error=outcome.to_dict())
        else:
            yield outcome


def _outcome(models: Sequence[XClip], sample: Sample, clip: Clip) -> Outcome:
    given = {model.precision: model.classify(clip, top_k=None).labels for model in models}
    answers: dict[str, Answer] = {precision: _answer(labels, sample.label) for precision, labels in given.items()}
    return Outcome(sample.video, sample.label, answers, _logit_error(*given.values()))


def _answer(scores: Sequence[LabelScore], truth: str) -> Answer:
    rank = 1 + next(place for place, score in enumerate(scores) if score.label == truth)
    best = scores[:KEPT]
    return Answer(rank, tuple(score.label for score in best), tuple(score.prob for score in best))


def _logit_error(first: Sequence[LabelScore], second: Sequence[LabelScore] | None = None) -> float | None:
    if second is None:
        return None
    logits = {score.label: score.logit for score in first}
    return max(abs(score.logit - logits[score.label]) for score in second)
