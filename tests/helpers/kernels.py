"""Find the nodes of a graph that a GPU provider has no kernel for, from tables of its documentation.

tests/data/cuda_kernels.json and tests/data/tensorrt_operators.json name their source and version.
"""

from __future__ import annotations

import json
from pathlib import Path

import onnx
from onnx import defs, helper

from xclip_export.graph import element_types

DATA = Path(__file__).parents[1] / "data"
CUDA = json.loads((DATA / "cuda_kernels.json").read_text())
TENSORRT = json.loads((DATA / "tensorrt_operators.json").read_text())

# Inputs that CUDA kernels read on the host; only a constant is there without a copy.
HOST_INPUTS = {
    "Clip": (1, 2),
    "ConstantOfShape": (0,),
    "Expand": (1,),
    "Pad": (1, 2, 3),
    "ReduceL2": (1,),
    "ReduceMean": (1,),
    "ReduceSum": (1,),
    "Reshape": (1,),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "Unsqueeze": (1,),
}
# Their output is on the host, and ONNX Runtime gives what reads it to the CPU.
HOST_OUTPUTS = {"Shape", "Size"}


def not_on_cuda(model):
    """List the nodes that ONNX Runtime cannot run on its CUDA provider, or only with a copy."""
    types, constants = element_types(model), {weight.name for weight in model.graph.initializer}
    problems = []
    for node in model.graph.node:
        host = [node.input[i] for i in HOST_INPUTS.get(node.op_type, ()) if i < len(node.input) and node.input[i]]
        if node.op_type in HOST_OUTPUTS or not constants.issuperset(host):
            problems.append(f"{node.op_type} {node.name}: shape arithmetic runs on the host")
        elif not any(_fits(row, node, model, types) for row in CUDA["kernels"].get(_key(node), [])):
            problems.append(f"{node.op_type} {node.name}: no kernel for {_types_of(node, types)}")
    return problems


def not_in_tensorrt(model):
    """List the nodes that the documentation of TensorRT's parser does not cover."""
    types, inputs = element_types(model), {value.name for value in model.graph.input}
    first, last = TENSORRT["opsets"]
    problems = [] if first <= _opset(model, "") <= last else ["the opset"]
    for node in model.graph.node:
        allowed = TENSORRT["kernels"].get(_key(node), "").split()
        used = [_name(types[name]) for name in (node.input[0], node.output[0])]
        bytes_inside = "uint8" in used and not inputs & set(node.input)
        if not set(used) <= set(allowed) or bytes_inside:
            problems.append(f"{node.op_type} {node.name}: {used}")
    return problems


def _fits(row, node, model, types):
    """Return True if a kernel of the table takes a node's opset and types."""
    since, until, allowed = row
    if node.domain:
        letters, version = ["T"] * len(node.input), 1
    else:
        schema = defs.get_schema(node.op_type, _opset(model, ""), "")
        letters = [_formal(schema.inputs, i).type_str for i in range(len(node.input))]
        version = schema.since_version
    if not since <= version <= (until or version):
        return False
    pairs = list(zip(letters, node.input, strict=True))
    if node.op_type == "Cast":
        pairs.append(("T2", node.output[0]))
    return all(_name(types[name]) in allowed[letter].split() for letter, name in pairs if name and letter in allowed)


def _formal(inputs, index):
    return inputs[min(index, len(inputs) - 1)]


def _key(node):
    return f"{node.domain}.{node.op_type}" if node.domain else node.op_type


def _opset(model, domain):
    return next(opset.version for opset in model.opset_import if opset.domain == domain)


def _types_of(node, types):
    return [_name(types[name]) for name in node.input if name]


def _name(element_type):
    return onnx.TensorProto.DataType.Name(element_type).lower()


def one_node(op, element_type, *, domain="", **attributes):
    """A graph of a single node with one input and one output of a type."""
    values = [helper.make_tensor_value_info(name, element_type, ["a", "b"]) for name in ("x", "y")]
    node = helper.make_node(op, ["x"], ["y"], name=op, domain=domain, **attributes)
    graph = helper.make_graph([node], "one", values[:1], values[1:])
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    )
