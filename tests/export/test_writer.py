"""A graph is saved as one file, or with its weights beside it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from xclip_export import writer
from xclip_export.writer import save_graph


@pytest.fixture
def graph():
    weight = onnx.numpy_helper.from_array(np.arange(4096, dtype=np.float32), "weight")
    value = onnx.helper.make_tensor_value_info
    node = onnx.helper.make_node("Add", ["x", "weight"], ["y"])
    body = onnx.helper.make_graph([node], "g", [value("x", 1, [4096])], [value("y", 1, [4096])], [weight])
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)])


def test_a_small_graph_is_one_file(tmp_path, graph):
    assert save_graph(graph, tmp_path / "onnx/g.onnx", {"tower": "vision"}) == ()
    assert [file.name for file in (tmp_path / "onnx").iterdir()] == ["g.onnx"]


def test_a_larger_graph_keeps_its_weights_in_a_file_beside_it(tmp_path, graph, monkeypatch):
    monkeypatch.setattr(writer, "EXTERNAL_DATA_THRESHOLD", 1000)

    data = save_graph(graph, tmp_path / "g.onnx", {})

    assert data == (tmp_path / "g.onnx_data",)
    assert (tmp_path / "g.onnx").stat().st_size < 1000
    loaded = onnx.load(tmp_path / "g.onnx")
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(loaded.graph.initializer[0]), np.arange(4096))


def test_whoever_may_read_the_graph_may_read_its_weights(tmp_path, graph, monkeypatch):
    monkeypatch.setattr(writer, "EXTERNAL_DATA_THRESHOLD", 1000)

    (data,) = writer.save_graph(graph, tmp_path / "graph.onnx", {})

    assert data.stat().st_mode == (tmp_path / "graph.onnx").stat().st_mode
