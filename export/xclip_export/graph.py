"""A small builder of ONNX graphs: nodes are added one by one, and tensors are known by their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

MICROSOFT = "com.microsoft"
_IR_VERSION = 9


class GraphBuilder:
    """Collects the nodes and initializers of one graph.

    Args:
        name: Of the graph.
        opset: Of the standard domain.
    """

    def __init__(self, name: str, opset: int = 18) -> None:
        self._name, self._opset = name, opset
        self._nodes: list[NodeProto] = []
        self._initializers: dict[str, TensorProto] = {}
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declare a graph input; a str in ``shape`` is a symbolic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, _element_type(dtype), shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> None:
        """Declare a graph output; some node must produce ``name``."""
        self._outputs.append(helper.make_tensor_value_info(name, _element_type(dtype), shape))

    def constant(self, name: str, value: NDArray[Any] | np.generic | float | Sequence[int]) -> str:
        """Store an initializer once and return its name; a sequence of int becomes int64, a float float32."""
        if name not in self._initializers:
            if isinstance(value, float):
                value = np.float32(value)
            array = np.ascontiguousarray(value) if np.ndim(value) else np.asarray(value)
            self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def node(self, op: str, inputs: Sequence[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output and return the output's name; an empty input name leaves that input out."""
        return self.nodes(op, inputs, [output], domain=domain, **attributes)[0]

    def nodes(
        self,
        op: str,
        inputs: Sequence[str],
        outputs: Sequence[str],
        *,
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with several outputs and return their names."""
        self._nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return list(outputs)

    def reshape(self, x: str, shape: Sequence[int], output: str) -> str:
        """Reshape ``x``; 0 keeps a dimension and -1 is inferred."""
        return self.node("Reshape", [x, self.constant("shape." + ".".join(map(str, shape)), shape)], output)

    def model(self) -> ModelProto:
        """The checked model."""
        graph = helper.make_graph(
            self._nodes, self._name, self._inputs, self._outputs, list(self._initializers.values())
        )
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="xclip-onnx")
        checker.check_model(model)
        return model


def _element_type(dtype: type[np.generic]) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
