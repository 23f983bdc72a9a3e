"""The check of kernels finds the nodes that would leave the GPU."""

from __future__ import annotations

import onnx
import pytest
from onnx import TensorProto, helper

from helpers.kernels import CUDA, TENSORRT, not_in_tensorrt, not_on_cuda, one_node
from xclip_runtime.demo import DEMO_BUNDLE


@pytest.mark.parametrize("name", ["vision_model", "prompt_model"])
def test_the_embedded_bundle_runs_whole_on_a_gpu(name):
    model = onnx.load(DEMO_BUNDLE / f"onnx/{name}.onnx")

    assert not_on_cuda(model) == []
    assert not_in_tensorrt(model) == []


def test_the_tables_name_their_source_and_version():
    for table in (CUDA, TENSORRT):
        assert table["source"].startswith("https://github.com/")
        assert table["version"]


@pytest.mark.parametrize(
    ("op", "element_type", "attributes"),
    [
        ("LpNormalization", TensorProto.FLOAT, {}),
        ("Einsum", TensorProto.BFLOAT16, {"equation": "ij->ji"}),
        ("Einsum", TensorProto.INT64, {"equation": "ij->ji"}),
        ("Sigmoid", TensorProto.INT8, {}),
        ("ReduceL2", TensorProto.BFLOAT16, {}),
    ],
)
def test_a_node_without_a_cuda_kernel_is_named(op, element_type, attributes):
    problems = not_on_cuda(one_node(op, element_type, **attributes))

    assert len(problems) == 1
    assert op in problems[0]


def test_a_byte_pad_is_named_because_cuda_pads_no_bytes():
    model = one_node("Pad", TensorProto.UINT8)
    model.graph.initializer.append(helper.make_tensor("pads", TensorProto.INT64, [4], [0, 1, 0, 0]))
    model.graph.node[0].input.append("pads")

    assert "no kernel for ['uint8'" in not_on_cuda(model)[0]


def test_shape_arithmetic_is_named_because_it_runs_on_the_host():
    model = one_node("Shape", TensorProto.FLOAT)

    assert "on the host" in not_on_cuda(model)[0]


def test_a_shape_that_is_computed_is_named():
    model = one_node("Reshape", TensorProto.FLOAT)
    model.graph.input.append(helper.make_tensor_value_info("shape", TensorProto.INT64, [2]))
    model.graph.node[0].input.append("shape")

    assert "on the host" in not_on_cuda(model)[0]


@pytest.mark.parametrize("element_type", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_a_contributed_operator_with_a_kernel_passes(element_type):
    assert not_on_cuda(one_node("QuickGelu", element_type, domain="com.microsoft")) == []


@pytest.mark.parametrize(
    ("op", "element_type", "domain"),
    [
        ("QuickGelu", TensorProto.FLOAT, "com.microsoft"),
        ("Transpose", TensorProto.UINT8, ""),
        ("Sigmoid", TensorProto.DOUBLE, ""),
    ],
)
def test_what_tensorrt_does_not_document_is_named(op, element_type, domain):
    assert not_in_tensorrt(one_node(op, element_type, domain=domain))


def test_tensorrt_takes_bytes_at_the_door_and_nowhere_else():
    model = one_node("Cast", TensorProto.UINT8, to=TensorProto.FLOAT)
    assert not_in_tensorrt(model) == []

    model.graph.node.insert(0, helper.make_node("Identity", ["pixels"], ["x"]))
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["a", "b"]))
    assert len(not_in_tensorrt(model)) == 2
    assert isinstance(model, onnx.ModelProto)
