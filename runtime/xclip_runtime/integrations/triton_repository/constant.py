"""Give a graph's input a value, without the onnx package.

Two protobuf messages, one after the other, are their merge: sub-messages are merged, repeated fields joined
(https://protobuf.dev/programming-guides/encoding/#last-one-wins). So a graph gets one more initializer when a
``ModelProto`` that holds nothing else is appended to its file. An initializer that has the name of an input is the
input's default value (ONNX IR, since version 4); runtimes then do not ask for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Field numbers of onnx.proto3.
_MODEL_GRAPH = 7
_GRAPH_INITIALIZER = 5
_TENSOR_DIMS, _TENSOR_DATA_TYPE, _TENSOR_NAME, _TENSOR_RAW_DATA = 1, 2, 8, 9
_FLOAT = 1

_VARINT, _BYTES = 0, 2


def initializer(name: str, values: NDArray[np.float32]) -> bytes:
    """What to append to a serialised graph so that its input ``name`` has these values.

    Args:
        name: Of the input.
        values: float32, of any shape.
    """
    tensor = b"".join(
        (
            *(_number(_TENSOR_DIMS, size) for size in values.shape),
            _number(_TENSOR_DATA_TYPE, _FLOAT),
            _block(_TENSOR_NAME, name.encode()),
            _block(_TENSOR_RAW_DATA, values.astype("<f4").tobytes()),
        )
    )
    return _block(_MODEL_GRAPH, _block(_GRAPH_INITIALIZER, tensor))


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3 | _VARINT) + _varint(value)


def _block(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | _BYTES) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that more follow."""
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
