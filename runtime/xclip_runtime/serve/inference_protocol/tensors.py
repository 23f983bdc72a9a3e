"""Input tensors of the Open Inference Protocol, which are read once their shapes are known to be wanted."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Protocol

import msgspec
import numpy as np
from msgspec import Meta

from xclip_runtime.errors import TensorError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

MAX_RANK = 8
"""Maximum number of dimensions of a tensor."""

MAX_NAME = 256
"""Maximum length of a name or id, characters."""

LENGTH = struct.Struct("<I")
"""Length before each element of BYTES."""

_MAX_DIMENSION = 2**31 - 1
_PIECE_BYTES = 1 << 20
_NUMBERS = msgspec.json.Decoder(list[Annotated[int, Meta(ge=0, le=255)]])
_NO_UINT8 = "has values that are no integers from 0 to 255"


class TensorData(Protocol):
    """The elements of a tensor, not yet read."""

    def uint8(self, count: int) -> NDArray[np.uint8]:
        """Return `count` values; raise a ValueError if there are more or fewer, or others than 0 to 255."""

    def strings(self, count: int) -> Sequence[memoryview]:
        """Return `count` byte strings; raise a ValueError if there are more or fewer."""


@dataclass(frozen=True)
class BinaryData:
    """Elements as they are in memory; each byte string is preceded by its length."""

    content: memoryview

    def uint8(self, count: int) -> NDArray[np.uint8]:
        """Return `count` values without a copy."""
        _check_count(len(self.content), count)
        return np.frombuffer(self.content, np.uint8)

    def strings(self, count: int) -> Sequence[memoryview]:
        """Return `count` byte strings without a copy."""
        strings, rest = [], self.content
        for _ in range(count):
            size = LENGTH.unpack_from(rest)[0] if len(rest) >= LENGTH.size else len(rest)
            end = LENGTH.size + size
            if len(rest) < end:
                message = "is truncated: send each element of BYTES as its length (uint32) and its bytes"
                raise ValueError(message)
            strings.append(rest[LENGTH.size : end])
            rest = rest[end:]
        if rest:
            message = f"has {len(rest)} bytes after its {count} elements"
            raise ValueError(message)
        return strings


@dataclass(frozen=True)
class JsonData:
    """Elements as a JSON array, flat or nested."""

    text: memoryview

    def uint8(self, count: int) -> NDArray[np.uint8]:
        """Return `count` values, read piece by piece."""
        if count > len(self.text) // 2:  # The shortest value is a digit and a comma or bracket.
            message = f"has fewer than {count} elements"
            raise ValueError(message)
        return _gathered((_NUMBERS.decode(piece) for piece in _pieces(self.text)), count)

    def strings(self, count: int) -> Sequence[memoryview]:  # noqa: ARG002 - no number of them will do
        """Refuse strings, which JSON cannot hold."""
        message = "is JSON, which cannot hold a video: send it as binary data"
        raise ValueError(message)


@dataclass(frozen=True)
class ListedData:
    """Elements as the lists of a gRPC message."""

    numbers: Sequence[int]
    texts: Sequence[bytes]

    def uint8(self, count: int) -> NDArray[np.uint8]:
        """Return `count` values, read piece by piece."""
        _check_count(len(self.numbers), count)
        return _gathered((self.numbers[i : i + _PIECE_BYTES] for i in range(0, count, _PIECE_BYTES)), count)

    def strings(self, count: int) -> Sequence[memoryview]:
        """Return `count` byte strings."""
        _check_count(len(self.texts), count)
        return [memoryview(text) for text in self.texts]


@dataclass(frozen=True)
class Input:
    """Input tensor of a request."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: TensorData

    def __post_init__(self) -> None:
        """Check the shape."""
        if len(self.shape) > MAX_RANK or any(not 0 <= n <= _MAX_DIMENSION for n in self.shape):
            message = (
                f"input {self.name[:MAX_NAME]} has shape {list(self.shape[:MAX_RANK])}: send at most {MAX_RANK} sizes "
                f"from 0 to {_MAX_DIMENSION}"
            )
            raise TensorError(message)

    def uint8(self) -> NDArray[np.uint8]:
        """Return the values in their shape. Check the shape first: they are as many as it says.

        Raises:
            TensorError: The datatype is not UINT8, or the values do not fit the shape or the datatype.
        """
        self._check_datatype("UINT8")
        try:
            return self.data.uint8(math.prod(self.shape)).reshape(self.shape)
        except ValueError as error:
            raise self._error(error) from error

    def strings(self) -> Sequence[memoryview]:
        """Return the elements of a BYTES tensor. Check the shape first: they are as many as it says.

        Raises:
            TensorError: The datatype is not BYTES, or the data are truncated or do not fit the shape.
        """
        self._check_datatype("BYTES")
        try:
            return self.data.strings(math.prod(self.shape))
        except ValueError as error:
            raise self._error(error) from error

    def _check_datatype(self, wanted: str) -> None:
        if self.datatype != wanted:
            message = f"input {self.name} is {self.datatype[:MAX_NAME]}: send {wanted}"
            raise TensorError(message)

    def _error(self, error: ValueError) -> TensorError:
        # A msgspec error names the value's place in a piece, which tells the client nothing.
        decoding = isinstance(error, msgspec.DecodeError)
        reason = _NO_UINT8 if decoding else str(error)
        return TensorError(f"input {self.name} of shape {list(self.shape)} {reason}")


def _pieces(text: memoryview) -> Iterator[bytes]:
    """Yield a JSON array of numbers, nested or not, as flat arrays of about `_PIECE_BYTES`."""
    rest = b""
    for start in range(0, len(text), _PIECE_BYTES):
        numbers = rest + bytes(text[start : start + _PIECE_BYTES]).translate(None, b"[]")
        whole, comma, rest = numbers.rpartition(b",")
        if comma:
            yield b"[" + whole + b"]"
    yield b"[" + rest + b"]"


def _gathered(pieces: Iterable[Sequence[int]], count: int) -> NDArray[np.uint8]:
    values = np.empty(count, np.uint8)
    filled = 0
    for piece in pieces:
        end = filled + len(piece)
        if end > count:
            _check_count(end, count)
        try:
            values[filled:end] = np.frombuffer(bytes(piece), np.uint8)
        except ValueError:
            raise ValueError(_NO_UINT8) from None
        filled = end
    _check_count(filled, count)
    return values


def _check_count(found: int, wanted: int) -> None:
    if found != wanted:
        message = f"has {found} elements: send {wanted}"
        raise ValueError(message)
