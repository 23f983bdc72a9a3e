"""The fp16 graph for CUDA computes what the vision tower computes, whichever way it is rounded."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch

from helpers import kernels
from helpers.half_arithmetic import run_as_gpu
from helpers.small_towers import MEAN, SHAPES, STD, clips, logits, run
from xclip_export.fp16 import fp16_vision_model
from xclip_export.seeded import outlier_twin, seeded_config, seeded_model
from xclip_export.towers import VisionTower
from xclip_export.weights import Linear, Norm, Projections, fold_query_bias

TOLERANCE = 0.05  # on logits, the design's for fp16 graphs
FP16_MAX = 65504
HALF = onnx.TensorProto.FLOAT16


def plain(model):
    return model


def massive_channels(model):
    """Two channels of the residual stream a thousand times above the others, as in large trained transformers."""
    with torch.no_grad():
        model.vision_model.encoder.layers[0].mlp.fc2.bias[[3, 40]] += torch.tensor([900.0, -400.0])
    return model


@pytest.fixture(scope="module")
def small():
    return VisionTower(seeded_model(seeded_config(**SHAPES["B/32"])), MEAN, STD).eval()


@pytest.fixture(scope="module")
def graph(small):
    return fp16_vision_model(small)


@pytest.mark.parametrize(
    ("shape", "change"), [("B/32", plain), ("B/32", outlier_twin), ("B/32", massive_channels), ("L/14", outlier_twin)]
)
def test_logits_stay_within_tolerance_and_activations_within_range(shape, change):
    model = change(seeded_model(seeded_config(**SHAPES[shape])))
    tower = VisionTower(model, MEAN, STD).eval()
    pixels = clips(tower, 1)
    with torch.no_grad():
        expected = logits(model, *tower(torch.from_numpy(pixels)))
    graph = fp16_vision_model(tower)
    rounded = run_as_gpu(graph, {"pixel_values": pixels})

    for outputs in (run(graph, pixels), [rounded["video_embeds"], rounded["img_features"]]):
        assert np.abs(logits(model, *outputs) - expected).max() <= TOLERANCE
    halves = [value for value in rounded.values() if value is not None and value.dtype == np.float16]
    assert max(float(np.abs(value).max()) for value in halves) < FP16_MAX / 8
    assert expected.std() > 0.2


def test_rounding_at_every_node_is_what_the_second_opinion_adds(small, graph):
    pixels = clips(small, 1)
    tensors = run_as_gpu(graph, {"pixel_values": pixels})

    for name, cpu in zip(("video_embeds", "img_features"), run(graph, pixels), strict=True):
        assert not np.array_equal(tensors[name], cpu)
        np.testing.assert_allclose(tensors[name], cpu, atol=0.02 * np.abs(cpu).max())


def test_every_node_has_a_cuda_kernel(graph):
    assert kernels.not_on_cuda(graph) == []


def test_a_clip_does_not_depend_on_the_rest_of_the_batch(small, graph):
    pixels = clips(small, 3)
    together = run(graph, pixels)
    for index in range(3):
        for alone, among in zip(run(graph, pixels[index : index + 1]), together, strict=True):
            np.testing.assert_allclose(alone[0], among[index], rtol=0, atol=2e-3 * np.abs(among).max())


def test_the_large_weights_are_fp16(graph):
    large = [weight for weight in graph.graph.initializer if np.prod(weight.dims) > 100_000]
    encoder = [weight for weight in large if weight.name.startswith(("layers.", "patch_embedding"))]

    assert encoder
    assert {weight.data_type for weight in encoder} == {HALF}


def test_projections_behind_the_encoder_are_fp32(graph):
    behind = [w for w in graph.graph.initializer if w.name.startswith(("visual_", "post_", "mit.", "prompts_proj"))]

    assert behind
    assert {weight.data_type for weight in behind} == {onnx.TensorProto.FLOAT}


def test_the_residual_is_added_inside_the_norms(graph):
    operators = [node.op_type for node in graph.graph.node]

    assert operators.count("SkipLayerNormalization") == 2 * 3 + 2  # two a layer, and one a message after the first
    assert all(len(node.input) == 3 for node in graph.graph.node if node.op_type == "MultiHeadAttention")


def test_products_of_all_tokens_with_a_bias_are_convolutions_between_transposes_that_cancel_channels_last(graph):
    made_by = {name: node for node in graph.graph.node for name in node.output}
    read_by = {name: node for node in graph.graph.node for name in node.input}
    convolutions = [node for node in graph.graph.node if node.op_type == "Conv"]

    assert {node.name for node in convolutions} >= {f"layers.{index}.fc1.convolved" for index in range(3)}
    assert all(".message." in n.name for n in graph.graph.node if n.op_type == "Gemm" and n.name.startswith("layers."))
    for node in convolutions:
        before, after = made_by[node.input[0]], read_by[node.output[0]]
        assert (before.op_type, after.op_type) == ("Transpose", "Transpose")
        assert [list(side.attribute[0].ints) for side in (before, after)] == [[0, 3, 1, 2], [0, 2, 3, 1]]
        assert len(node.input) == 3


def some_attention(seed, *, query_scale=1.0):
    rng = np.random.default_rng(seed)

    def linear(biased, scale=1.0):
        weight = scale * rng.normal(size=(64, 64)).astype(np.float32) / 8
        return Linear(weight, rng.normal(size=64).astype(np.float32) / 64 if biased else None)

    norm = Norm(rng.normal(size=64).astype(np.float32), rng.normal(size=64).astype(np.float32), 1e-5)
    return norm, Projections(4, linear(True, query_scale), linear(False), linear(False), linear(True))


def attend(norm, weights, x):
    def project(rows, linear):
        return rows @ linear.weight.astype(np.float64) + (0 if linear.bias is None else linear.bias)

    normed = (x - x.mean(-1, keepdims=True)) / x.std(-1, keepdims=True) * norm.gain + norm.bias
    query, key, value = (
        project(normed, part).reshape(*x.shape[:2], weights.heads, -1).swapaxes(1, 2)
        for part in (weights.query, weights.key, weights.value)
    )
    scores = np.exp(query @ key.swapaxes(-1, -2))
    mixed = scores / scores.sum(-1, keepdims=True) @ value
    return project(mixed.swapaxes(1, 2).reshape(x.shape), weights.out)


def test_the_query_bias_is_folded_into_the_norm_exactly():
    norm, weights = some_attention(0)
    moved_norm, moved = fold_query_bias(norm, weights)

    x = np.random.default_rng(1).normal(size=(2, 9, 64))
    assert moved.query.bias is None
    assert np.abs(moved_norm.bias - norm.bias).max() > 1e-3
    np.testing.assert_allclose(attend(moved_norm, moved, x), attend(norm, weights, x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("query_scale", [1e-6, 0.0])
def test_the_query_bias_stays_where_the_shift_would_drown_the_tokens(query_scale):
    norm, weights = some_attention(0, query_scale=query_scale)

    assert fold_query_bias(norm, weights) == (norm, weights)
