"""What a model answers: frozen dataclasses that turn into the documented JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from xclip_runtime.streaming.windows import Gap
    from xclip_runtime.video import Clip


@dataclass(frozen=True)
class LabelScore:
    """One label of a classification."""

    label: str
    """Name of the label as in the bundle."""

    prob: float
    """Softmax of the logits over the whole label set, in [0, 1]."""

    logit: float
    """Cosine of video and prompted text embedding times exp(logit_scale)."""


@dataclass(frozen=True)
class FrameUse:
    """Which frames of the video were looked at."""

    indices: tuple[int, ...]
    """Index of each of the T sampled frames; short videos repeat frames."""

    decoded: int
    """Number of distinct frames that were decoded and kept."""

    total: int
    """Number of frames in the video."""

    decoder: str = "array"
    """What delivered the frames: "opencv", "pyav", or "array" for frames in memory."""

    notes: tuple[str, ...] = ()
    """What was out of the ordinary, such as a wrong frame count or another decoder than usual."""

    @classmethod
    def of(cls, clip: Clip) -> FrameUse:
        """Those of a clip."""
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
    """What the vision graph gives for one clip: all that scoring texts needs of a video."""

    video_embeds: NDArray[np.float32]
    """float32 (D,), as the graph gives it: not of unit length."""

    img_features: NDArray[np.float32]
    """float32 (P, D): what the video-specific prompts attend to, one row a patch, averaged over the frames."""

    @property
    def unit_embeds(self) -> NDArray[np.float32]:
        """``video_embeds`` at unit length, float32 (D,)."""
        unit: NDArray[np.float32] = self.video_embeds / np.linalg.norm(self.video_embeds)
        return unit


@dataclass(frozen=True)
class Classification:
    """The labels of one video, best first."""

    video: str | None
    """Path as given; None for an array."""

    labels: tuple[LabelScore, ...]
    """The best ``top_k`` labels in descending order of probability."""

    frames: FrameUse
    provider: str
    """The execution provider that really ran the vision graph."""

    precision: str
    """Precision of the vision graph: "fp32", "fp16" or "int8"."""

    timings_ms: Timings

    @property
    def top(self) -> LabelScore:
        """The most probable label."""
        return self.labels[0]

    def to_dict(self) -> dict[str, Any]:
        """The ``classify --json`` document of this result: plain lists, strings and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class TextScore:
    """How well one text describes a video."""

    text: str

    prob: float
    """Softmax of the logits over the texts given, in [0, 1]: it compares them with each other only."""

    logit: float
    """Cosine times exp(logit_scale)."""

    cosine: float
    """Of video and prompted text embedding, in [-1, 1]: comparable between calls."""


@dataclass(frozen=True)
class VideoScores:
    """What one video has in common with each of some texts."""

    video: str | None
    """Path as given; None for an array."""

    texts: tuple[TextScore, ...]
    """In the order given."""

    frames: FrameUse
    provider: str
    """The execution provider that really ran the vision graph."""

    precision: str
    """Precision of the vision graph: "fp32", "fp16" or "int8"."""

    timings_ms: Timings

    def to_dict(self) -> dict[str, Any]:
        """The ``score --json`` document of this result: plain lists, strings and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class WindowResult:
    """The labels of one window of a stream, best first."""

    start: float
    """Seconds on the source's clock."""

    end: float
    """Seconds on the source's clock."""

    labels: tuple[LabelScore, ...]
    """The best ``top_k`` labels; their probabilities are smoothed where that was asked for, their logits never."""

    latency_ms: float
    """From the arrival of the window's last frame to this result."""

    dropped_windows: int
    """Windows passed over since the result before, because the model was busy."""

    dropped_frames: int
    """Frames of these windows that no result has seen."""

    gap: Gap | None
    """What was lost since the result before, because the source broke."""

    provider: str
    """The execution provider that really ran the vision graph."""

    precision: str
    """Precision of the vision graph: "fp32", "fp16" or "int8"."""

    @property
    def top(self) -> LabelScore:
        """The most probable label."""
        return self.labels[0]

    def to_dict(self) -> dict[str, Any]:
        """The ``stream --json`` document of this result: plain lists, strings and numbers."""
        return asdict(self)


@dataclass(frozen=True)
class Event:
    """A label that held for a while."""

    label: str

    start: float
    """Start of the first window in which it held, seconds on the source's clock."""

    end: float | None
    """End of the last such window, seconds; None while it goes on."""

    prob: float
    """The highest probability so far."""

    def to_dict(self) -> dict[str, Any]:
        """The ``stream --events --json`` document."""
        return asdict(self)
