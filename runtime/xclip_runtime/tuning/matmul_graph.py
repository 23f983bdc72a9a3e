"""ONNX graph of one matrix product, for the roofline; the runtime has no ``onnx`` to write it with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_FLOAT, _UINT8, _INT8, _INT32 = 1, 2, 3, 6
_TYPE_OF = {"float32": _FLOAT, "uint8": _UINT8, "int8": _INT8}
_SCALE = np.float32(1 / 255)


def matmul_graph(kind: str, rows: int, inner: int, columns: int) -> bytes:
    """Serialise a model that multiplies its input "a", (rows, inner), with constant weights.

    Args:
        kind: "float" for fp32 input and weights; "integer" for ONNX's MatMulInteger, u8 times s8; "quantised" for
            fp32 input that QuantizeLinear and DequantizeLinear let engines multiply in int8.
        rows: Rows of the input.
        inner: Columns of the input.
        columns: Columns of the result.
    """
    weights = np.random.default_rng(0).integers(-127, 127, (inner, columns), np.int8)
    constants = {"w": weights if kind != "float" else weights / np.float32(127)}
    result = _INT32 if kind == "integer" else _FLOAT
    if kind == "quantised":
        constants |= {"s": np.array(_SCALE), "z": np.array(0, np.uint8), "wz": np.array(0, np.int8)}
        nodes = [
            _node("QuantizeLinear", ("a", "s", "z"), "aq"),
            _node("DequantizeLinear", ("aq", "s", "z"), "af"),
            _node("DequantizeLinear", ("w", "s", "wz"), "wf"),
            _node("MatMul", ("af", "wf"), "y"),
        ]
    else:
        nodes = [_node("MatMulInteger" if kind == "integer" else "MatMul", ("a", "w"), "y")]
    graph = (
        b"".join(_field(1, node) for node in nodes)
        + _field(2, b"matmul")
        + b"".join(_field(5, _tensor(name, value)) for name, value in constants.items())
        + _field(11, _value("a", _UINT8 if kind == "integer" else _FLOAT, (rows, inner)))
        + _field(12, _value("y", result, (rows, columns)))
    )
    return _field(1, 8) + _field(7, graph) + _field(8, _field(2, 17))


def _node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    named = b"".join(_field(1, name.encode()) for name in inputs)
    return named + _field(2, output.encode()) + _field(3, output.encode()) + _field(4, operator.encode())


def _tensor(name: str, value: NDArray[np.generic]) -> bytes:
    sizes = b"".join(_field(1, size) for size in value.shape)
    return sizes + _field(2, _TYPE_OF[value.dtype.name]) + _field(8, name.encode()) + _field(9, value.tobytes())


def _value(name: str, kind: int, shape: Sequence[int]) -> bytes:
    sizes = b"".join(_field(1, _field(1, size)) for size in shape)
    return _field(1, name.encode()) + _field(2, _field(1, _field(1, kind) + _field(2, sizes)))


def _field(number: int, value: bytes | int) -> bytes:
    """Serialise a field of Protocol Buffers: an integer, or bytes with their length."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    return _varint(number << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
