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
