"""Requests and responses of the Open Inference Protocol, version 2, with the binary tensor extension.

Over HTTP a body is a JSON document, followed by the binary data of the tensors that it announces; gRPC has messages of
its own. This module knows no models, no HTTP and no gRPC.

A request costs no more memory than a small multiple of its size, and only once its shapes are known to be wanted: the
document is decoded into the types below, which skips what they do not name, and tensors stay where they are until
`Input.uint8` or `Input.strings` is called.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Raw

from xclip_runtime.errors import TensorError
from xclip_runtime.inference.scoring import best_first
from xclip_runtime.serve.inference_protocol.tensors import LENGTH, MAX_NAME, MAX_RANK, BinaryData, Input, JsonData

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

JSON_BYTES = 32 << 20
"""Maximum size of the JSON: a clip as nested lists; larger tensors must be sent as binary data.

Skipping so much takes less than 0.1 s, for which other threads wait.
"""

MAX_TENSORS = 16
"""Maximum number of inputs, and of requested outputs."""

# Largest legitimate document: a request, its tensors, and the parameters of each.
_MAX_OBJECTS = 2 + 4 * MAX_TENSORS
_MAX_SHAPE_BYTES = 256

_Name = Annotated[str, Meta(max_length=MAX_NAME)]


@dataclass(frozen=True)
class RequestedOutput:
    """Output that a request names."""

    name: str
    binary: bool
    classes: int
    """Classification extension: number of classes to return as "value:index:label"; 0 for the tensor."""


@dataclass(frozen=True)
class InferRequest:
    """Parsed request."""

    id: str | None
    inputs: tuple[Input, ...]
    outputs: tuple[RequestedOutput, ...]
    """Requested outputs; empty for all."""
    binary_outputs: bool
    timeout: float
    """Client's timeout, seconds; infinite by default."""

    def __post_init__(self) -> None:
        """Check that names are not repeated."""
        for kind, named in (("inputs", self.inputs), ("outputs", self.outputs)):
            if len({tensor.name for tensor in named}) < len(named):
                message = f"two {kind} have the same name: send each once"
                raise TensorError(message)


class _Parameters(msgspec.Struct, frozen=True):
    """The parameters of requests, inputs and outputs that mean something here."""

    binary_data_size: Annotated[int, Meta(ge=0)] | None = None
    binary_data: bool = False
    binary_data_output: bool = False
    classification: Annotated[int, Meta(ge=0)] = 0
    timeout: Annotated[float, Meta(ge=0)] = 0.0
    """Microseconds; 0 for none."""


class _InputDocument(msgspec.Struct, frozen=True):
    name: _Name
    datatype: _Name
    shape: Raw
    data: Raw = Raw()
    parameters: _Parameters | None = None


class _OutputDocument(msgspec.Struct, frozen=True):
    name: _Name
    parameters: _Parameters | None = None


class _RequestDocument(msgspec.Struct, frozen=True):
    inputs: Annotated[list[_InputDocument], Meta(max_length=MAX_TENSORS)]
    outputs: Annotated[list[_OutputDocument], Meta(max_length=MAX_TENSORS)] | None = None
    id: _Name | None = None
    parameters: _Parameters | None = None


_DOCUMENT = msgspec.json.Decoder(_RequestDocument)
_SHAPE = msgspec.json.Decoder(tuple[int, ...])
_NO_PARAMETERS = _Parameters()


def parse(body: memoryview, json_bytes: int | None) -> InferRequest:
    """Parse a body, which the request refers to.

    Args:
        body: The whole body.
        json_bytes: Length of its JSON, from the header Inference-Header-Content-Length; None for all.

    Raises:
        TensorError: The body does not follow the protocol.
    """
    size = len(body) if json_bytes is None else json_bytes
    if size > min(len(body), JSON_BYTES):
        message = f"{size} bytes of JSON exceed the body or the limit of {JSON_BYTES}: send tensors as binary data"
        raise TensorError(message)
    head, rest = body[:size], body[size:]
    # Lists of tensors are checked when they are decoded, which is too late for millions.
    if next(islice(re.finditer(rb"\{", head), _MAX_OBJECTS, None), None):
        message = f"the request has more than {_MAX_OBJECTS} JSON objects: send fewer inputs and outputs"
        raise TensorError(message)
    try:
        document = _DOCUMENT.decode(head)
        parameters = document.parameters or _NO_PARAMETERS
        return InferRequest(
            id=document.id,
            inputs=tuple(_inputs(document.inputs, rest)),
            outputs=tuple(_requested_output(output) for output in document.outputs or ()),
            binary_outputs=parameters.binary_data_output,
            timeout=parameters.timeout / 1e6 or math.inf,
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = "it is nested too deep" if isinstance(error, RecursionError) else str(error)
        message = f"the request does not follow the Open Inference Protocol: {reason}"
        raise TensorError(message) from error


@dataclass(frozen=True)
class Output:
    """Output tensor of a response.

    Args:
        requested: The request for it.
        values: float32 (B, N).
        labels: N labels, for the classification extension.
    """

    requested: RequestedOutput
    values: NDArray[Any]
    labels: Sequence[str]

    @cached_property
    def tensor(self) -> NDArray[Any]:
        """The values, or the top classes of each row as strings."""
        return _classes(self.values, self.requested.classes, self.labels) if self.requested.classes else self.values

    @property
    def datatype(self) -> str:
        """Datatype by the protocol's name."""
        return "BYTES" if self.requested.classes else "FP32"

    def to_bytes(self) -> bytes:
        """Return the elements as binary data; each string is preceded by its length."""
        if self.requested.classes:
            return b"".join(LENGTH.pack(len(element)) + element for element in self.tensor.flat)
        return self.tensor.tobytes()

    def to_list(self) -> list[Any]:
        """Return the elements as a JSON list."""
        return (
            [element.decode() for element in self.tensor.flat]
            if self.requested.classes
            else self.tensor.ravel().tolist()
        )


def pack(head: Mapping[str, Any], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """Return the body of a response and the length of its JSON; None if all of it is JSON.

    Args:
        head: Fields beside the outputs.
        outputs: The outputs.
    """
    documents, payloads = [], []
    for output in outputs:
        document: dict[str, Any] = {
            "name": output.requested.name,
            "datatype": output.datatype,
            "shape": list(output.tensor.shape),
        }
        if output.requested.binary:
            payloads.append(output.to_bytes())
            document["parameters"] = {"binary_data_size": len(payloads[-1])}
        else:
            document["data"] = output.to_list()
        documents.append(document)
    encoded = json.dumps({**head, "outputs": documents}).encode()
    return (encoded + b"".join(payloads), len(encoded)) if payloads else (encoded, None)


def _inputs(documents: Sequence[_InputDocument], rest: memoryview) -> Iterator[Input]:
    for document in documents:
        size = (document.parameters or _NO_PARAMETERS).binary_data_size
        if len(document.shape) > _MAX_SHAPE_BYTES:
            message = f"input {document.name} has a shape of more than {_MAX_SHAPE_BYTES} bytes: send {MAX_RANK} sizes"
            raise TensorError(message)
        shape = _SHAPE.decode(document.shape)
        if size is None:
            if not document.data:
                message = f"input {document.name} has neither data nor binary_data_size: send one of them"
                raise TensorError(message)
            yield Input(document.name, document.datatype, shape, JsonData(memoryview(document.data)))
            continue
        if size > len(rest):
            message = f"input {document.name} announces {size} bytes, but the body has {len(rest)} left"
            raise TensorError(message)
        yield Input(document.name, document.datatype, shape, BinaryData(rest[:size]))
        rest = rest[size:]


def _requested_output(document: _OutputDocument) -> RequestedOutput:
    parameters = document.parameters or _NO_PARAMETERS
    return RequestedOutput(document.name, parameters.binary_data, parameters.classification)


def _classes(values: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[Any]:
    rows = [[f"{row[i]:f}:{i}:{labels[i]}".encode() for i in best_first(row, row)[:count]] for row in values]
    return np.array(rows, dtype=object)
