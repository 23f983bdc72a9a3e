"""Requests and responses of the Open Inference Protocol, version 2, with the binary tensor extension.

Over HTTP a body is a JSON document, followed by the binary data of the tensors that it announces; gRPC has messages of
its own. This module knows no models, no HTTP and no gRPC.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from xclip_runtime.errors import TensorError
from xclip_runtime.inference.scoring import best_first

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

JSON_BYTES = 64 << 20
"""Maximum size of the JSON; larger tensors must be sent as binary data."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Input:
    """Input tensor of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | list[Any]
    """Binary data, or the elements listed in the document or message."""

    def __post_init__(self) -> None:
        """Check the shape."""
        if any(n < 0 for n in self.shape):
            message = f"input {self.name} has shape {list(self.shape)}: send non-negative sizes"
            raise TensorError(message)

    def uint8(self) -> NDArray[np.uint8]:
        """Return the values in their shape.

        Raises:
            TensorError: The datatype is not UINT8, or the number of values contradicts the shape.
        """
        if self.datatype != "UINT8":
            message = f"input {self.name} is {self.datatype}: send UINT8"
            raise TensorError(message)
        if isinstance(self.data, memoryview):
            values = np.frombuffer(self.data, np.uint8)
        else:
            values = _uint8_of_list(self.name, self.data)
        if values.size != math.prod(self.shape):
            message = f"input {self.name} has {values.size} values, which do not fit its shape {list(self.shape)}"
            raise TensorError(message)
        return values.reshape(self.shape)

    def strings(self) -> list[bytes]:
        """Return the elements of a BYTES tensor.

        Raises:
            TensorError: The datatype is not BYTES, or the data are truncated or do not fit the shape.
        """
        if self.datatype != "BYTES":
            message = f"input {self.name} is {self.datatype}: send BYTES"
            raise TensorError(message)
        elements = self.data if isinstance(self.data, list) else list(_elements(self.name, self.data))
        if not all(isinstance(element, bytes) for element in elements):
            message = f"input {self.name} is JSON, which cannot hold a video: send it as binary data"
            raise TensorError(message)
        if len(elements) != math.prod(self.shape):
            message = f"input {self.name} has {len(elements)} elements, which do not fit its shape {list(self.shape)}"
            raise TensorError(message)
        return elements


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
    inputs: Mapping[str, Input]
    outputs: tuple[RequestedOutput, ...]
    """Requested outputs; empty for all."""
    binary_outputs: bool
    timeout: float
    """Client's timeout, seconds; infinite by default."""


def parse(body: memoryview, json_bytes: int | None) -> InferRequest:
    """Parse a body.

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
    try:
        document = json.loads(bytes(body[:size]))
        parameters = document.get("parameters") or {}
        return InferRequest(
            id=document.get("id"),
            inputs={tensor.name: tensor for tensor in _inputs(document["inputs"], body[size:])},
            outputs=tuple(_requested_output(output) for output in document.get("outputs") or ()),
            binary_outputs=bool(parameters.get("binary_data_output", False)),
            timeout=float(parameters.get("timeout") or math.inf) / 1e6,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, TensorError):
            raise
        message = f"the request does not follow the Open Inference Protocol ({type(error).__name__}: {error})"
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
            return b"".join(_LENGTH.pack(len(element)) + element for element in self.tensor.flat)
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


def _inputs(documents: Sequence[Mapping[str, Any]], rest: memoryview) -> Iterator[Input]:
    for document in documents:
        shape = tuple(int(n) for n in document["shape"])
        size = (document.get("parameters") or {}).get("binary_data_size")
        if size is None:
            yield Input(str(document["name"]), document["datatype"], shape, list(document["data"]))
            continue
        if not 0 <= int(size) <= len(rest):
            message = f"input {document['name']} announces {size} bytes, but the body has {len(rest)} left"
            raise TensorError(message)
        yield Input(str(document["name"]), document["datatype"], shape, rest[: int(size)])
        rest = rest[int(size) :]


def _requested_output(document: Mapping[str, Any]) -> RequestedOutput:
    parameters = document.get("parameters") or {}
    classes = int(parameters.get("classification", 0))
    return RequestedOutput(str(document["name"]), bool(parameters.get("binary_data", False)), max(0, classes))


def _uint8_of_list(name: str, data: list[Any]) -> NDArray[np.uint8]:
    try:
        values = np.array(data).ravel()
    except ValueError as error:
        message = f"input {name} is ragged: send the values in its shape"
        raise TensorError(message) from error
    if values.size and (values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255):
        message = f"input {name} has values out of the range of UINT8"
        raise TensorError(message)
    return values.astype(np.uint8)


def _elements(name: str, data: memoryview) -> Iterator[bytes]:
    while data:
        if len(data) < _LENGTH.size or len(data) - _LENGTH.size < _LENGTH.unpack_from(data)[0]:
            message = f"input {name} is truncated: send each element of BYTES as its length (uint32) and its bytes"
            raise TensorError(message)
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        yield bytes(data[_LENGTH.size : end])
        data = data[end:]


def _classes(values: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[Any]:
    rows = [[f"{row[i]:f}:{i}:{labels[i]}".encode() for i in best_first(row, row)[:count]] for row in values]
    return np.array(rows, dtype=object)
