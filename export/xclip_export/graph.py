"""Builder of ONNX graphs, node by node, and tools that inspect or change graphs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, checker, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

MICROSOFT = "com.microsoft"
SMALLEST_HALVED = 1024
"""Number of values from which a weight is stored in fp16."""
HALF_LARGEST = float(np.finfo(np.float16).max)
_IR_VERSION = 9


class GraphBuilder:
    """Builder of one graph; tensors are known by their names.

    Args:
        name: Name of the graph.
        opset: Opset of the standard domain.
        initializers: Initializers to share with the graph around the body of a loop; None for new ones.
    """

    def __init__(self, name: str, opset: int = 18, initializers: dict[str, TensorProto] | None = None) -> None:
        self._name, self._opset = name, opset
        self._nodes: list[NodeProto] = []
        self._initializers = {} if initializers is None else initializers
        self._inputs: list[ValueInfoProto] = []
        self._outputs: list[ValueInfoProto] = []

    def input(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> str:
        """Declare a graph input; a str in ``shape`` is a symbolic dimension."""
        self._inputs.append(helper.make_tensor_value_info(name, _element_type(dtype), shape))
        return name

    def output(self, name: str, dtype: type[np.generic], shape: Sequence[int | str]) -> None:
        """Declare a graph output, which a node must produce."""
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
        """Add a node with one output, and return its name; an empty input name omits an optional input."""
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
        """Add a node with several outputs, and return their names."""
        self._nodes.append(helper.make_node(op, inputs, outputs, name=outputs[0], domain=domain, **attributes))
        return list(outputs)

    def reshape(self, x: str, shape: Sequence[int], output: str) -> str:
        """Reshape ``x``; 0 keeps a dimension and -1 is inferred."""
        return self.node("Reshape", [x, self.constant("shape." + ".".join(map(str, shape)), shape)], output)

    def body(self, name: str) -> GraphBuilder:
        """Make a builder for the body of a `scan`, which shares its initializers with this graph."""
        return GraphBuilder(name, self._opset, self._initializers)

    def scan(self, body: GraphBuilder, inputs: Sequence[str], outputs: Sequence[str]) -> list[str]:
        """Run ``body`` once for every index of the inputs' first axis, and stack its outputs.

        Args:
            body: Builder from `body`; its inputs and outputs are those of one step.
            inputs: Tensors to slice, one for each input of the body.
            outputs: Names for the stacked outputs of the body.
        """
        return self.nodes("Scan", inputs, outputs, body=body.graph(), num_scan_inputs=len(inputs))

    def graph(self, initializers: Sequence[TensorProto] = ()) -> GraphProto:
        """Finish the graph with these initializers."""
        return helper.make_graph(self._nodes, self._name, self._inputs, self._outputs, initializers)

    def model(self) -> ModelProto:
        """Finish and check the model."""
        graph = self.graph(list(self._initializers.values()))
        opsets = [helper.make_opsetid("", self._opset), helper.make_opsetid(MICROSOFT, 1)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="xclip-onnx")
        checker.check_model(model)
        return model


def copy_reshaped_dimensions(model: ModelProto) -> None:
    """Replace dimensions that a Reshape reads from a Shape node but keeps by 0, which copies them; changes ``model``.

    Traced graphs are full of them, and ONNX Runtime places Shape nodes and their consumers on the CPU.
    """
    graph = model.graph
    made_by = {output: node for node in graph.node for output in node.output}
    constants = {weight.name: numpy_helper.to_array(weight) for weight in graph.initializer}
    for node in graph.node:
        concat = made_by.get(node.input[1]) if node.op_type == "Reshape" else None
        if concat is None or concat.op_type != "Concat":
            continue
        sizes = [_copied_size(part, axis, made_by, constants) for axis, part in enumerate(concat.input)]
        if None not in sizes:
            name = f"{node.output[0]}.shape"
            graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
            node.input[1] = name
    _drop_unread(graph)


def _copied_size(
    name: str, axis: int, made_by: Mapping[str, NodeProto], constants: Mapping[str, NDArray[Any]]
) -> int | None:
    """Resolve entry ``axis`` of a new shape: a constant, or 0 for the dimension of that axis; None if neither."""
    if name in constants:
        return int(constants[name].item())
    chain: list[NodeProto] = []
    node = made_by.get(name)
    while node is not None and len(chain) < 3:
        chain.append(node)
        node = made_by.get(node.input[0])
    if [part.op_type for part in chain] != ["Unsqueeze", "Gather", "Shape"]:
        return None
    return 0 if int(constants[chain[1].input[1]]) == axis else None


def _drop_unread(graph: GraphProto) -> None:
    """Remove nodes and initializers that nothing reads."""
    read = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if read & set(node.output):
            read |= set(node.input)
    nodes = [node for node in graph.node if read & set(node.output)]
    weights = [weight for weight in graph.initializer if weight.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(weights)


def element_types(model: ModelProto) -> dict[str, int]:
    """Infer the element type (a ``TensorProto`` number) of every tensor of a graph, contributed operators included.

    Sufficient for graphs without control flow: a node passes on the type of its first input, except for the few
    operators whose output type is an attribute or fixed.
    """
    types = {weight.name: weight.data_type for weight in model.graph.initializer}
    types |= {value.name: value.type.tensor_type.elem_type for value in model.graph.input}
    for node in model.graph.node:
        attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        if node.op_type == "Cast":
            found = int(attributes["to"])
        elif node.op_type == "Shape":
            found = int(TensorProto.INT64)
        elif node.op_type in ("Constant", "ConstantOfShape"):
            found = attributes["value"].data_type if "value" in attributes else int(TensorProto.FLOAT)
        else:
            found = types[node.input[0]]
        types |= dict.fromkeys(filter(None, node.output), found)
    return types


def _element_type(dtype: type[np.generic]) -> int:
    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def halve_weights(model: ModelProto) -> ModelProto:
    """Store the large weights of a model in fp16; they are cast once, when it is loaded, and it computes in fp32."""
    casts = []
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALLEST_HALVED or np.abs(values).max() > HALF_LARGEST:
            continue
        stored = f"{weight.name}.fp16"
        casts.append(helper.make_node("Cast", [stored], [weight.name], to=TensorProto.FLOAT))
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*casts, *nodes])
    return model
