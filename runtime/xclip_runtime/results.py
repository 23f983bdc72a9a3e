"""Results of a model: frozen dataclasses that turn into the documented JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.video import Clip


class JsonResult:
    """A dataclass that is also a JSON document."""

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints: nested dictionaries of sequences, strings and numbers."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]  # every subclass is a dataclass


@dataclass(frozen=True)
class LabelScore:
    """One label of a classification."""

    label: str
    """Name of the label."""

    prob: float
    """Softmax of the logits over the whole label set, in [0, 1]."""

    logit: float
    """Cosine of video and prompted text embedding times exp(logit_scale)."""


@dataclass(frozen=True, kw_only=True)
class ModelResult(JsonResult):
    """Result of a model, with what ran its vision graph."""

    provider: str
    """Execution provider that ran the vision graph."""

    precision: str
    """Precision of the vision graph, such as "fp32"."""

    device: str
    """Device that ran it, such as "cpu"; "other" for execution providers of the user's own list."""

    graph: str
    """Name of the vision graph, such as "vision_model_int8"."""

    def to_dict(self) -> dict[str, Any]:
        """Return the document that ``--json`` prints; what ran the graph is at its end."""
        document = super().to_dict()
        return document | {name: document.pop(name) for name in ("provider", "precision", "device", "graph")}


class _BestFirst:
    labels: tuple[LabelScore, ...]

    @property
    def top(self) -> LabelScore:
        """The most probable label."""
        return self.labels[0]


@dataclass(frozen=True)
class FrameUse:
    """The frames of a video that the model was given."""

    indices: tuple[int, ...]
    """Index of each of the T sampled frames; short videos repeat frames."""

    decoded: int
    """Number of distinct frames that were decoded and kept."""

    total: int
    """Number of frames in the video."""

    decoder: str = "array"
    """Decoder that delivered the frames; "array" for frames in memory."""

    notes: tuple[str, ...] = ()
    """Irregularities, such as a wrong frame count or a decoder other than the usual one."""

    @classmethod
    def of(cls, clip: Clip) -> FrameUse:
        """Take over the frame indices and notes of a clip."""
        return cls(clip.indices, clip.decoded, clip.total, clip.decoder, clip.notes)


@dataclass(frozen=True)
class Timings:
    """Wall time of each stage, in milliseconds."""

    decode: float
    prepare: float
    vision: float
    prompt: float
    total: float


@dataclass(frozen=True, eq=False)
class VideoFeatures:
    """Outputs of the vision graph for one clip, which suffice to score any text against it."""

    video_embeds: NDArray[np.float32]
    """float32 (D,), not normalised."""

    img_features: NDArray[np.float32]
    """float32 (P, D), averaged over the frames: the patches that the video-specific prompts attend to."""

    @property
    def unit_embeds(self) -> NDArray[np.float32]:
        """``video_embeds`` at unit length, float32 (D,)."""
        unit: NDArray[np.float32] = self.video_embeds / np.linalg.norm(self.video_embeds)
        return unit


@dataclass(frozen=True)
class Classification(ModelResult, _BestFirst):
    """The labels of one video, best first."""

    video: str | None
    """Path as given; None for a video in memory."""

    labels: tuple[LabelScore, ...]
    """The best ``top_k`` labels in descending order of probability."""

    frames: FrameUse
    """The frames that the model was given."""

    timings_ms: Timings
    """Wall time of each stage, in milliseconds."""


@dataclass(frozen=True)
class TextScore:
    """Score of one text for a video."""

    text: str
    """The text as given."""

    prob: float
    """Softmax of the logits over the texts given, in [0, 1]; not comparable between calls."""

    logit: float
    """Cosine times exp(logit_scale)."""

    cosine: float
    """Cosine of video and prompted text embedding, in [-1, 1]; comparable between calls."""


@dataclass(frozen=True)
class VideoScores(ModelResult):
    """Scores of several texts for one video."""

    video: str | None
    """Path as given; None for a video in memory."""

    texts: tuple[TextScore, ...]
    """In the order given."""

    frames: FrameUse
    """The frames that the model was given."""

    timings_ms: Timings
    """Wall time of each stage, in milliseconds."""


@dataclass(frozen=True)
class Gap:
    """A part of a stream that was lost."""

    start: float
    """Time of the last frame before it, seconds on the source's clock."""

    end: float
    """Time of the first frame after it, seconds on the source's clock."""


@dataclass(frozen=True)
class Encoding:
    """Origin of the features of a window."""

    exact: bool
    """True if every frame was computed for this window."""

    new_frames: int
    """Number of frames that were computed for this window; the others were cached."""

    frames: int
    """Number of frames in the window."""

    drift: float | None
    """Largest difference of a logit between exact and cached at the last refresh; None before the first."""

    @classmethod
    def all_new(cls, frames: int) -> Encoding:
        """Return the encoding of a window that was computed without a cache."""
        return cls(exact=True, new_frames=frames, frames=frames, drift=None)

    def __str__(self) -> str:
        if self.exact:
            return "exact" if self.drift is None else f"exact, drift {self.drift:.2g}"
        drift = "not measured yet" if self.drift is None else f"{self.drift:.2g}"
        return f"cached, {self.new_frames} of {self.frames} new, drift {drift}"


@dataclass(frozen=True)
class WindowResult(ModelResult, _BestFirst):
    """The labels of one window of a stream, best first."""

    start: float
    """Seconds on the source's clock."""

    end: float
    """Seconds on the source's clock."""

    labels: tuple[LabelScore, ...]
    """The best ``top_k`` labels; smoothing changes their probabilities, never their logits."""

    latency_ms: float
    """Milliseconds from the arrival of the window's last frame to this result."""

    dropped_windows: int
    """Windows dropped since the previous result because the model was busy."""

    dropped_frames: int
    """Frames of the dropped windows that are in no result."""

    gap: Gap | None
    """The part of the stream that was lost since the previous result because the source broke."""

    encoding: Encoding
    """Origin of its features: all frames computed for this window, or some taken from a cache."""


@dataclass(frozen=True)
class Event(JsonResult):
    """A label that held for a while."""

    label: str
    """Name of the label."""

    start: float
    """Start of the first window in which it held, seconds on the source's clock."""

    end: float | None
    """End of the last such window, seconds; None while it lasts."""

    prob: float
    """Highest probability so far."""
