"""Bodies of /v2, for the OpenAPI document. Requests are parsed by `codec`, which bounds what they may cost."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field


class ProtocolError(BaseModel):
    """Body of every error."""

    error: str


class ServerMetadata(BaseModel):
    """The server."""

    name: str
    version: str
    extensions: list[str]


class Tensor(BaseModel):
    """Input or output of a model; -1 stands for any size."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(BaseModel):
    """A model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]
    parameters: dict[str, str]


class ModelReady(BaseModel):
    """Readiness of a model."""

    name: str
    ready: bool


class IndexEntry(BaseModel):
    """A model of the repository."""

    name: str
    version: str
    state: str = Field(description="READY or UNAVAILABLE.")
    reason: str


class ModelStatistics(BaseModel):
    """Statistics of models, by Triton's names."""

    model_stats: list[dict[str, Any]]


class InferRequestedOutput(BaseModel):
    """Output to return."""

    name: str
    parameters: dict[str, Any] = Field(
        {}, description="`binary_data`: true for binary data; `classification`: number of classes in place of values."
    )


class InferInput(Tensor):
    """Input of a request."""

    data: list[Any] | None = Field(None, description="Values, flat or nested; or send them as binary data.")
    parameters: dict[str, Any] = Field({}, description="`binary_data_size`: bytes of the binary data of this input.")


class InferBody(BaseModel):
    """JSON of a request, followed by the binary data of its inputs."""

    id: str | None = None
    inputs: list[InferInput] = Field(min_length=1)
    outputs: list[InferRequestedOutput] = Field([], description="Default: all.")
    parameters: dict[str, Any] = Field(
        {}, description="`timeout`: microseconds; `binary_data_output`: true for binary data."
    )


class InferOutput(Tensor):
    """Output of a response."""

    data: list[Any] | None = None
    parameters: dict[str, Any] | None = Field(None, description="`binary_data_size`: bytes of its binary data.")


class InferResponse(BaseModel):
    """JSON of a response, followed by the binary data of its outputs."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[InferOutput]


class IndexOptions(BaseModel):
    """Request of the repository's index."""

    ready: bool = Field(False, description="List the ready models alone.")


class LoadOptions(BaseModel):
    """Request to load or unload a model."""

    parameters: dict[str, Any] = Field({}, description="Triton's `config` and `file:` are refused.")
