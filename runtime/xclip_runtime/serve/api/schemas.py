"""Request bodies of /v1, and the result dataclasses with the fields that only HTTP has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from typing_extensions import Self

from xclip_runtime.results import Classification, FrameUse, ModelResult, Timings, VideoScores
from xclip_runtime.search.video_index import Hit, SearchResult
from xclip_runtime.util.plain_text import BLANKS, lines
from xclip_runtime.video.views import Views

MAX_THUMBNAILS = 64
MAX_TOP_K = 1_000_000
MAX_SECONDS = 1e9
MAX_TRACK = 1000
MAX_OVERLAP = 16
"""Largest number of windows of a camera that share a frame, which bounds the frames that a connection holds."""
DATA_URL = "JPEG as a data URL."
MODEL = "Name of a model of this server; default: its first."


def _split_lines(value: object) -> object:
    """Split strings at line breaks, so that a form needs a single field."""
    values = value if isinstance(value, list) else [value]
    texts = [text for text in values if isinstance(text, str)]
    if len(texts) < len(values):
        return value
    names = [name for text in texts for line in lines(text) if (name := line.strip(BLANKS))]
    if texts and not names:
        message = "is blank: give one text a line, or leave it out"
        raise ValueError(message)
    return names


_LINES = {"anyOf": [{"type": "array", "items": {"type": "string"}}, {"type": "string", "title": "One a line"}]}
# The first error is enough: a million of them take seconds and a gigabyte.
Texts = Annotated[list[str], FailFast(), BeforeValidator(_split_lines), WithJsonSchema(_LINES)]


class RequestOptions(BaseModel):
    """Options of a request; unknown names are refused."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, values: Any) -> Any:
        # pydantic would make an error of each.
        names = values if isinstance(values, dict) else ()
        unknown = next((name for name in names if name not in cls.model_fields), None)
        if unknown is not None:
            message = f"unknown option {unknown}: use {', '.join(cls.model_fields)}"
            raise ValueError(message)
        return values


def _renamed(values: dict[str, Any], old: str, new: str) -> dict[str, Any]:
    """Take the former name of an option; both at once leave it unknown."""
    if old in values and new not in values:
        return {(new if name == old else name): value for name, value in values.items()}
    return values


class VideoOptions(RequestOptions):
    """Part of the video to read, and extras of the response."""

    model: str | None = Field(None, description=MODEL)
    start: float = Field(0.0, ge=0, le=MAX_SECONDS, description="Seconds from the first frame.")
    end: float | None = Field(
        None, gt=0, le=MAX_SECONDS, description="Seconds from the first frame; default: the end of the video."
    )
    track: int | None = Field(
        None, ge=0, le=MAX_TRACK, description="Number of the video track, from 0; default: FFmpeg's best."
    )
    token: str | None = Field(None, description="Token of a kept video, instead of an upload.")
    keep: bool = Field(False, description="Keep the video's features; the response's `token` is what to reuse them by.")
    thumbnails: int = Field(
        0, ge=0, le=MAX_THUMBNAILS, description="Number of sampled frames to return, as data URLs (JPEG)."
    )

    @model_validator(mode="before")
    @classmethod
    def _accept_former_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _renamed(values, "clip", "token")

    @model_validator(mode="after")
    def _check_range(self) -> Self:
        if self.end is not None and self.end <= self.start:
            message = "end must be greater than start"
            raise ValueError(message)
        return self


class ClassifyOptions(VideoOptions):
    """Options of /v1/classify."""

    top_k: int | None = Field(
        5, ge=1, le=MAX_TOP_K, description="Number of labels, best first; null or `none` for all."
    )
    labels: Texts = Field(
        default=[],
        description="Label set that replaces the bundle's: one label a line, or the field repeated. Labels of the "
        "bundle keep their embeddings.",
    )
    texts: Texts = Field(default=[], description="Like `labels`, but every text is encoded anew.")
    views: str = Field(
        "1x1",
        json_schema_extra={"pattern": r"^[0-9]{1,4}x[13]$"},
        description="POSITIONSxCROPS: temporal positions x crops (1 or 3), averaged.",
    )

    @field_validator("top_k", mode="before")
    @classmethod
    def _none_is_all(cls, value: object) -> object:
        return None if value in ("none", "all", "") else value

    @field_validator("views")
    @classmethod
    def _check_views(cls, value: str) -> str:
        Views.parse(value)
        return value


class EmbedOptions(VideoOptions):
    """Options of /v1/embed."""


class ScoreOptions(VideoOptions):
    """Options of /v1/score."""

    texts: Texts = Field(
        default=[], description="Texts to score, one a line, in this order; default: the bundle's labels."
    )


class LabelChange(RequestOptions):
    """Message of /v1/live that replaces the label set."""

    labels: Texts = Field(default=[])
    texts: Texts = Field(default=[])


class LiveOptions(LabelChange):
    """First message of /v1/live."""

    model: str | None = Field(None, description=MODEL)
    window: float = Field(2.0, ge=0.1, le=60, description="Length of a window, seconds.")
    hop: float = Field(0.5, ge=0.01, le=60, description="Distance between windows, at least a 16th of one, seconds.")
    smooth: float = Field(0.0, ge=0, le=60, description="Time constant of the smoothing, seconds.")
    reuse: bool = Field(False, description="Compute the new frames of a window only, an approximation.")
    refresh: int = Field(64, ge=0, description="Interval of exact windows, in windows; 0 for none.")
    top_k: int = Field(5, ge=1, le=MAX_TOP_K)
    api_key: str = ""

    @model_validator(mode="after")
    def _check_overlap(self) -> Self:
        if self.window > MAX_OVERLAP * self.hop:
            message = f"the hop is {self.hop:g} s: it must be at least the window divided by {MAX_OVERLAP}"
            raise ValueError(message)
        return self


class SearchOptions(RequestOptions):
    """Options of /v1/search."""

    text: str = Field(min_length=1, description="Search query.")
    top_k: int = Field(10, ge=1, le=100, description="Number of hits, best first.")
    thumbnails: int = Field(0, ge=0, le=8, description="Number of frames of each hit to return, as data URLs (JPEG).")

    @model_validator(mode="before")
    @classmethod
    def _accept_former_name(cls, values: dict[str, Any]) -> dict[str, Any]:
        return _renamed(values, "k", "top_k")


@dataclass(frozen=True, kw_only=True)
class RequestTimings(Timings):
    """Wall time of each stage of a request, in milliseconds."""

    upload: float
    queue: Annotated[float, Field(description="Wait for a decode worker and for the model.")]


@dataclass(frozen=True)
class Thumbnail:
    """A sampled frame."""

    index: Annotated[int, Field(description="Index of the frame in the video.")]
    image: Annotated[str, Field(description=DATA_URL)]


@dataclass(frozen=True, kw_only=True)
class VideoResponse:
    """Fields that HTTP adds to a result."""

    timings_ms: RequestTimings
    token: Annotated[str | None, Field(description="Token of the kept video, with `keep` or `token`.")] = None
    thumbnails: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ClassifyResponse(VideoResponse, Classification):
    """The labels of a video, best first."""


@dataclass(frozen=True, kw_only=True)
class ScoreResponse(VideoResponse, VideoScores):
    """The texts in the order of the request, with their scores."""


@dataclass(frozen=True, kw_only=True)
class EmbedResponse(VideoResponse, ModelResult):
    """The embedding of a video."""

    video: str | None
    embedding: Annotated[list[float], Field(description="Unit length (D,); not prompted, so it yields no logits.")]
    frames: FrameUse


@dataclass(frozen=True, kw_only=True)
class HitResponse(Hit):
    """A search hit; `video` is the file's name without its folder."""

    media: Annotated[str, Field(description="Path of the video, which needs no key; valid while the server runs.")]
    thumbnails: tuple[Annotated[str, Field(description=DATA_URL)], ...] = ()


@dataclass(frozen=True, kw_only=True)
class SearchResponse(SearchResult):
    """The hits of a query, best first."""

    hits: tuple[HitResponse, ...]


class ErrorDetail(BaseModel):
    """Error of a request."""

    type: str = Field(description="Class of the error, as in xclip_runtime.errors.")
    message: str
    request_id: str | None


class ErrorResponse(BaseModel):
    """Body of every error."""

    error: ErrorDetail


class Live(BaseModel):
    """Answer of the liveness probe."""

    live: bool


class Ready(BaseModel):
    """Answer of the readiness probe."""

    ready: bool


class ServerInfo(BaseModel):
    """Model and limits of this server."""

    model: str = Field(description="Name of the model on this server.")
    models: list[str] = Field(description="Names of all models of this server; the default first.")
    bundle: str
    checkpoint: str = Field(description="Name of the checkpoint, such as its hub id.")
    logit_scale: float = Field(description="Factor between the cosine of a label and its logit.")
    provider: str = Field(description="Execution provider of the vision graph.")
    precision: str
    device: str = Field(description="Device that runs the vision graph.")
    graph: str = Field(description="Name of the vision graph in the bundle.")
    num_frames: int
    labels: list[str]
    free_text: bool = Field(description="True if labels and texts outside the bundle can be encoded.")
    upload_bytes: int = Field(description="Maximum request body, bytes.")
    duration: float = Field(description="Maximum video duration, seconds.")
    max_views: int = Field(description="Maximum views of a video, temporal clips times crops.")
    sample: str = Field(description="Path of a sample video.")
    indexed: int | None = Field(description="Number of indexed windows; null without an index.")
