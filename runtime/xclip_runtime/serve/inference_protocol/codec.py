"""Requests and answers of the Open Inference Protocol, version 2, with its binary tensor extension.

Over HTTP a body is a JSON document, which may be followed by the bytes of the tensors that it announces; gRPC has
messages of its own for the same. Nothing here knows models, HTTP or gRPC.
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

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

JSON_BYTES = 64 << 20
"""Most bytes of JSON that are parsed; larger tensors have to come as bytes."""

_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Input:
    """A tensor of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: memoryview | list[Any]
    """Bytes, or the elements that the document or message listed."""

    def __post_init__(self) -> None:
        """Refuse a shape that is none."""
        if any(n < 0 for n in self.shape):
            message = f"input {self.name} has the shape {list(self.shape)}"
            raise TensorError(message)

    def uint8(self) -> NDArray[np.uint8]:
        """The values, in their shape.

        Raises:
            TensorError: They are not UINT8, or not as many as the shape says.
        """
        if self.datatype != "UINT8":
            message = f"input {self.name} is {self.datatype}: send UINT8"
            raise TensorError(message)
        if isinstance(self.data, memoryview):
            values = np.frombuffer(self.data, np.uint8)
        else:
            values = _uint8_of_list(self.name, self.data)
        if values.size != math.prod(self.shape):
            message = f"input {self.name} holds {values.size} values, its shape {list(self.shape)} says otherwise"
            raise TensorError(message)
        return values.reshape(self.shape)

    def strings(self) -> list[bytes]:
        """The elements of a BYTES tensor.

        Raises:
            TensorError: It is another type, is cut short, or holds other than as many elements as its shape says.
        """
        if self.datatype != "BYTES":
            message = f"input {self.name} is {self.datatype}: send BYTES"
            raise TensorError(message)
        elements = self.data if isinstance(self.data, list) else list(_elements(self.name, self.data))
        if not all(isinstance(element, bytes) for element in elements):
            message = f"input {self.name} comes as JSON, which cannot hold a video: send it as binary data"
            raise TensorError(message)
        if len(elements) != math.prod(self.shape):
            message = f"input {self.name} holds {len(elements)} elements, its shape {list(self.shape)} says otherwise"
            raise TensorError(message)
        return elements


@dataclass(frozen=True)
class WantedOutput:
    """An output that a request names."""

    name: str
    binary: bool
    classes: int
    """From the classification extension: how many of the best to return as "value:index:label"; 0 for the tensor."""


@dataclass(frozen=True)
class InferRequest:
    """A request, parsed."""

    id: str | None
    inputs: Mapping[str, Input]
    outputs: tuple[WantedOutput, ...]
    """None named means all."""
    binary_outputs: bool
    timeout: float
    """Seconds; infinite unless the client says."""


def parse(body: memoryview, json_bytes: int | None) -> InferRequest:
    """Read a body.

    Args:
        body: All of it.
        json_bytes: How much of it is JSON, from the header Inference-Header-Content-Length; None for all.

    Raises:
        TensorError: It is not what the protocol says.
    """
    size = len(body) if json_bytes is None else json_bytes
    if size > min(len(body), JSON_BYTES):
        message = f"{size} bytes of JSON are more than this server parses: send tensors as binary data"
        raise TensorError(message)
    try:
        document = json.loads(bytes(body[:size]))
        parameters = document.get("parameters") or {}
        return InferRequest(
            id=document.get("id"),
            inputs={tensor.name: tensor for tensor in _inputs(document["inputs"], body[size:])},
            outputs=tuple(_wanted(output) for output in document.get("outputs") or ()),
            binary_outputs=bool(parameters.get("binary_data_output", False)),
            timeout=float(parameters.get("timeout") or math.inf) / 1e6,
        )
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, TensorError):
            raise
        message = f"the request is not one of the Open Inference Protocol ({type(error).__name__}: {error})"
        raise TensorError(message) from error


@dataclass(frozen=True)
class Output:
    """A tensor of an answer.

    Args:
        wanted: What was asked for.
        values: float32 (B, N).
        labels: The names of the N, for the classification extension.
    """

    wanted: WantedOutput
    values: NDArray[Any]
    labels: Sequence[str]

    @cached_property
    def shown(self) -> NDArray[Any]:
        """The values, or the best classes of each row as strings."""
        return _classes(self.values, self.wanted.classes, self.labels) if self.wanted.classes else self.values

    @property
    def strings(self) -> bool:
        """Whether these are classes."""
        return self.wanted.classes > 0

    @property
    def datatype(self) -> str:
        """As the protocol calls it."""
        return "BYTES" if self.strings else "FP32"

    def to_bytes(self) -> bytes:
        """All elements, one after the other; strings each behind their length."""
        if self.strings:
            return b"".join(_LENGTH.pack(len(element)) + element for element in self.shown.flat)
        return self.shown.tobytes()

    def to_list(self) -> list[Any]:
        """All elements, in terms of JSON."""
        return [element.decode() for element in self.shown.flat] if self.strings else self.shown.ravel().tolist()


def pack(head: Mapping[str, Any], outputs: Sequence[Output]) -> tuple[bytes, int | None]:
    """The body of an answer, and how much of it is JSON; None for all.

    Args:
        head: What stands beside the outputs.
        outputs: Each with its values.
    """
    documents, payloads = [], []
    for output in outputs:
        document: dict[str, Any] = {
            "name": output.wanted.name,
            "datatype": output.datatype,
            "shape": list(output.shown.shape),
        }
        if output.wanted.binary:
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
            message = f"input {document['name']} announces {size} bytes, {len(rest)} are left in the body"
            raise TensorError(message)
        yield Input(str(document["name"]), document["datatype"], shape, rest[: int(size)])
        rest = rest[int(size) :]


def _wanted(document: Mapping[str, Any]) -> WantedOutput:
    parameters = document.get("parameters") or {}
    classes = int(parameters.get("classification", 0))
    return WantedOutput(str(document["name"]), bool(parameters.get("binary_data", False)), max(0, classes))


def _uint8_of_list(name: str, data: list[Any]) -> NDArray[np.uint8]:
    try:
        values = np.array(data).ravel()
    except ValueError as error:
        message = f"input {name} is ragged: send as many values as its shape says"
        raise TensorError(message) from error
    if values.size and (values.dtype.kind not in "iu" or values.min() < 0 or values.max() > 255):
        message = f"input {name} holds values that are not UINT8"
        raise TensorError(message)
    return values.astype(np.uint8)


def _elements(name: str, data: memoryview) -> Iterator[bytes]:
    while data:
        if len(data) < _LENGTH.size or len(data) - _LENGTH.size < _LENGTH.unpack_from(data)[0]:
            message = f"input {name} is cut short: each element of BYTES is its length as a uint32 and so many bytes"
            raise TensorError(message)
        end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
        yield bytes(data[_LENGTH.size : end])
        data = data[end:]


def _classes(values: NDArray[np.float32], count: int, labels: Sequence[str]) -> NDArray[Any]:
    best = np.argsort(-values, axis=1, kind="stable")[:, :count]
    rows = [[f"{values[row, i]:f}:{i}:{labels[i]}".encode() for i in order] for row, order in enumerate(best)]
    return np.array(rows, dtype=object)
