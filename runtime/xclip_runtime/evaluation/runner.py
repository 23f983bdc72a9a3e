"""Run the published protocol: each video is decoded once, and every model answers on the same frames."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from xclip_runtime.errors import FramesError, VideoError
from xclip_runtime.util.cpus import default_workers
from xclip_runtime.util.prefetch import pipelined
from xclip_runtime.video.load import Reading, read_video

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from xclip_runtime.evaluation.datasets import Sample
    from xclip_runtime.model import XClip
    from xclip_runtime.results import LabelScore
    from xclip_runtime.video import Clip

KEPT = 5
"""Labels that are kept of each answer: what top-5 needs."""


@dataclass(frozen=True)
class Answer:
    """What one model said about one video."""

    rank: int
    """Place of the true label among all, by probability; 1 is the best."""
    labels: tuple[str, ...]
    """The best five labels, best first."""
    probs: tuple[float, ...]
    """Their probabilities, averaged over the views."""

    @property
    def top(self) -> str:
        """The label that the model decided on."""
        return self.labels[0]


@dataclass(frozen=True)
class Outcome:
    """What became of one video."""

    video: str
    label: str
    answers: Mapping[str, Answer]
    """By precision; empty where the video could not be read."""
    logit_error: float | None = None
    """max |Δlogit| between the first and the second model, over all labels."""
    error: Mapping[str, str] | None = None
    """Type and message, where the video could not be read."""

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, strings and numbers."""
        return {name: value for name, value in asdict(self).items() if value not in (None, {})}

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Outcome:
        """What :meth:`to_dict` made."""
        answers = {
            precision: Answer(given["rank"], tuple(given["labels"]), tuple(given["probs"]))
            for precision, given in document.get("answers", {}).items()
        }
        return cls(document["video"], document["label"], answers, document.get("logit_error"), document.get("error"))


def evaluate(
    models: Sequence[XClip], samples: Iterable[Sample], *, reading: Reading | None = None, workers: int | None = None
) -> Iterator[Outcome]:
    """Let every model answer on every sample, in the samples' order.

    A video is read once, with the first model's profile; the next videos are read meanwhile.

    Args:
        models: One, or two of different precision that share bundle and profile.
        samples: Videos whose labels are spelt as the models' are.
        reading: Views, and which part of a video; None takes the whole video in one view.
        workers: Threads that read videos; None takes one for each CPU that this process may use, at most 4.
    """
    first = models[0]

    def read(sample: Sample) -> Clip | VideoError | FramesError:
        try:
            return read_video(sample.video, first.bundle.num_frames, first.transform, reading or Reading())
        except (VideoError, FramesError) as error:
            return error

    def answer(sample: Sample, clip: Clip | VideoError | FramesError) -> Outcome:
        if isinstance(clip, Exception):
            error = {"type": type(clip).__name__, "message": str(clip)}
            return Outcome(sample.video, sample.label, {}, error=error)
        given = {model.precision: model.classify(clip, top_k=None).labels for model in models}
        answers: dict[str, Answer] = {precision: _answer(labels, sample.label) for precision, labels in given.items()}
        return Outcome(sample.video, sample.label, answers, _logit_error(*given.values()))

    return pipelined(samples, read, answer, workers=workers or default_workers())


def _answer(scores: Sequence[LabelScore], truth: str) -> Answer:
    rank = 1 + next(place for place, score in enumerate(scores) if score.label == truth)
    best = scores[:KEPT]
    return Answer(rank, tuple(score.label for score in best), tuple(score.prob for score in best))


def _logit_error(first: Sequence[LabelScore], second: Sequence[LabelScore] | None = None) -> float | None:
    if second is None:
        return None
    logits = {score.label: score.logit for score in first}
    return max(abs(score.logit - logits[score.label]) for score in second)
