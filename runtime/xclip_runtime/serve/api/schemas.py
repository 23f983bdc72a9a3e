"""The documents of /v1: what a request may say, and what it is answered."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

from xclip_runtime.video.views import Views

MOST_THUMBNAILS = 64


def _lines(value: object) -> object:
    """One text with several lines is several texts, so that a form needs one field only."""
    values = value if isinstance(value, list) else [value]
    texts = [text for text in values if isinstance(text, str)]
    if len(texts) < len(values):
        return value
    return [line.strip() for text in texts for line in text.splitlines() if line.strip()]


Texts = Annotated[list[str], BeforeValidator(_lines)]


class VideoOptions(BaseModel):
    """Which part of a video is looked at."""

    model_config = ConfigDict(extra="forbid")

    start: float = Field(0.0, ge=0, description="Seconds from the first frame.")
    end: float | None = Field(None, gt=0, description="Seconds; the end of the video unless given.")
    clip: str | None = Field(None, description="A video that was kept, instead of an upload.")
    keep: bool = Field(False, description="Keep what the model saw, to ask about it again by the `clip` of the answer.")
    thumbnails: int = Field(
        0, ge=0, le=MOST_THUMBNAILS, description="How many of the sampled frames to send back, as data URLs (JPEG)."
    )

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.end is not None and self.end <= self.start:
            message = "end must be after start"
            raise ValueError(message)
        return self


class ClassifyOptions(VideoOptions):
    """How a video is classified."""

    top_k: int | None = Field(5, ge=1, description="How many labels, best first; null or none for all.")
    labels: Texts = Field(
        default=[],
        description="Labels instead of the bundle's, one a line, or the field once for each. Those of the bundle keep "
        "their embeddings.",
    )
    texts: Texts = Field(default=[], description="The same, but always encoded as they are.")
    views: str = Field("1x1", description="CLIPSxCROPS: average over so many temporal clips and 1 or 3 crops.")

    @field_validator("top_k", mode="before")
    @classmethod
    def _none_is_all(cls, value: object) -> object:
        return None if value in ("none", "all", "") else value

    @field_validator("views")
    @classmethod
    def _parsable(cls, value: str) -> str:
        Views.parse(value)
        return value


class EmbedOptions(VideoOptions):
    """How a video is embedded."""


class ScoreOptions(VideoOptions):
    """What a video is scored against."""

    texts: Texts = Field(
        default=[], description="Any words, one text a line, scored in this order; the bundle's labels unless given."
    )


class LabelChange(BaseModel):
    """Other labels for a live session, from now on."""

    model_config = ConfigDict(extra="forbid")

    labels: Texts = Field(default=[])
    texts: Texts = Field(default=[])


class LiveOptions(LabelChange):
    """How a live session begins."""

    window: float = Field(2.0, gt=0, le=60, description="Seconds that a window lasts.")
    hop: float = Field(0.5, gt=0, le=60, description="Seconds from one window to the next.")
    smooth: float = Field(0.0, ge=0, le=60, description="Time constant of smoothing, seconds.")
    top_k: int = Field(5, ge=1)
    api_key: str = ""


class SearchOptions(BaseModel):
    """What is searched for."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, description="Any words.")
    k: int = Field(10, ge=1, le=100, description="How many moments, best first.")
    thumbnails: int = Field(0, ge=0, le=8, description="How many frames of each moment to send, as data URLs (JPEG).")


class Moment(BaseModel):
    """A stretch of a video that was found."""

    video: str = Field(description="Name of the file, without its folder.")
    start: float = Field(description="Seconds.")
    end: float = Field(description="Seconds.")
    logit: float
    cosine: float
    thumbnails: list[str]


class Found(BaseModel):
    """The moments that a text describes best."""

    moments: list[Moment]
    windows: int = Field(description="How many there are in the index.")
    scored: int = Field(description="How many of them were scored exactly.")
    timings_ms: dict[str, float]


class LabelScore(BaseModel):
    """One label of a classification."""

    label: str
    prob: float = Field(description="Softmax over all labels, in [0, 1].")
    logit: float = Field(description="Cosine times exp(logit_scale).")


class TextScore(BaseModel):
    """One text and how well it fits."""

    text: str
    prob: float = Field(description="Softmax over the texts of the request, in [0, 1].")
    logit: float = Field(description="Cosine times exp(logit_scale).")


class FrameUse(BaseModel):
    """Which frames of the video were looked at."""

    indices: list[int]
    decoded: int
    total: int
    decoder: str = Field(description='What delivered the frames: "pyav", or "array" for frames in memory.')
    notes: list[str] = Field(description="What was out of the ordinary, such as a wrong frame count.")


class Timings(BaseModel):
    """Wall time, milliseconds."""

    upload: float
    queue: float = Field(description="Waiting for a decode worker and for the model.")
    decode: float
    prepare: float
    vision: float
    prompt: float
    total: float


class Thumbnail(BaseModel):
    """One of the frames that the model saw."""

    index: int = Field(description="Its number in the video.")
    image: str = Field(description="A data URL with a JPEG.")


class Answer(BaseModel):
    """What every answer about a video says."""

    video: str | None = Field(description="The name that the client gave.")
    frames: FrameUse
    provider: str = Field(description="The execution provider that really ran.")
    precision: str
    timings_ms: Timings
    clip: str | None = Field(None, description="With `keep`: what to call this video in later requests.")
    thumbnails: list[Thumbnail] = Field(default=[])


class Classification(Answer):
    """The labels of one video, best first."""

    labels: list[LabelScore]


class Scores(Answer):
    """Texts in the order of the request."""

    scores: list[TextScore]


class Embedding(Answer):
    """Where a video lies among others."""

    embedding: list[float] = Field(description="Of unit length; carries no prompt, so it gives no logits.")


class Problem(BaseModel):
    """Why there is no answer."""

    type: str
    message: str
    request_id: str | None


class ErrorAnswer(BaseModel):
    """The body of every error."""

    error: Problem


class ServerInfo(BaseModel):
    """What this server serves."""

    bundle: str
    provider: str = Field(description="The execution provider that really runs.")
    precision: str
    num_frames: int
    labels: list[str]
    free_text: bool = Field(description="Whether other labels and texts can be encoded here.")
    upload_bytes: int = Field(description="The largest body that is taken.")
    duration: float = Field(description="The longest video that is taken, seconds.")
    sample: str | None = Field(description="Where a video is to try it with, if there is one.")
    indexed: int | None = Field(description="How many windows /v1/search looks through; null without an index.")
