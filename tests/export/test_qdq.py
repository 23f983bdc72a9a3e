"""The portable int8 graph: standard operators, int8 products in the layers, and the errors of the int8 graph."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from helpers.small_towers import MEAN, SHAPES, STD, logits, run
from xclip_export.calibration import calibration_clips, observe
from xclip_export.int8 import Int8VisionGraph
from xclip_export.qdq import QdqVisionGraph
from xclip_export.seeded import outlier_twin, seeded_config, seeded_model
from xclip_export.towers import VisionTower


@pytest.fixture(scope="module")
def models():
    """The checkpoint, and both int8 graphs from the same calibration."""
    model = seeded_model(seeded_config(**SHAPES["B/32"]))
    return model, *both_graphs(model)


def both_graphs(model):
    tower = VisionTower(model, MEAN, STD).eval()
    observations = observe(tower, calibration_clips(tower.num_frames, tower.grid * tower.patch_size))
    return Int8VisionGraph(tower, observations).build(), QdqVisionGraph(tower, observations).build()


def errors(model, graph):
    """|Δlogit| of a graph on clips unseen by calibration."""
    tower = VisionTower(model, MEAN, STD).eval()
    clips = np.stack(calibration_clips(tower.num_frames, tower.grid * tower.patch_size, seed=7))
    with torch.no_grad():
        expected = logits(model, *tower(torch.from_numpy(clips)))
    return np.abs(logits(model, *run(graph, clips)) - expected)


def test_logits_are_as_close_as_those_of_the_int8_graph(models):
    model, int8, qdq = models

    assert np.median(errors(model, qdq)) <= 1.15 * np.median(errors(model, int8))


def test_an_outlier_twin_is_no_harder():
    model = outlier_twin(seeded_model(seeded_config(**SHAPES["B/32"])), gain=60)
    int8, qdq = both_graphs(model)

    assert np.median(errors(model, qdq)) <= 1.15 * np.median(errors(model, int8))


def test_it_takes_standard_operators_without_loops_or_arithmetic_of_shapes(models):
    nodes = models[2].graph.node

    assert {node.domain for node in nodes} == {""}
    assert not {"Shape", "Scan", "Loop", "If", "DynamicQuantizeLinear"} & {node.op_type for node in nodes}


def test_every_product_of_a_layer_is_between_rounded_tensors(models):
    """All but the message token's own projection and attention products, in fp32 as in the int8 graph."""
    graph = models[2].graph
    made_by = {name: node for node in graph.node for name in node.output}
    products = [
        node for node in graph.node if node.op_type in ("MatMul", "Gemm") and node.output[0].startswith("layers.")
    ]
    in_fp32 = [node.output[0] for node in products if not all(rounded(made_by, name) for name in node.input[:2])]

    layers = len({name.split(".")[1] for name in made_by if name.startswith("layers.")})
    # Six projections and two products of attention; from layer 1 the four projections of the message attention.
    assert len(products) - len(in_fp32) == 8 * layers + 4 * (layers - 1)
    assert sorted(in_fp32) == sorted(
        f"layers.{i}.message.{part}" for i in range(1, layers) for part in ("fc", "mixed.scores", "mixed.heads")
    )


def rounded(made_by, name):
    """Follow what only moves numbers back to a DequantizeLinear."""
    node = made_by.get(name)
    while node is not None and node.op_type in ("Reshape", "Transpose", "Flatten", "Concat"):
        node = made_by.get(node.input[0])
    return node is not None and node.op_type == "DequantizeLinear"


def test_no_product_of_two_activations_has_a_zero_point(models):
    """OpenVINO computes such a product in fp32."""
    zero_points = {
        weight.name: weight.raw_data
        for weight in models[2].graph.initializer
        if weight.name.endswith(("query.zero_point", "key.zero_point", "value.zero_point", "shares.zero_point"))
    }

    assert zero_points
    assert set(zero_points.values()) == {b"\0"}


def test_its_weights_are_those_of_the_int8_graph(models):
    """So that the two share one file."""
    _, int8, qdq = models
    held = {weight.raw_data for weight in int8.graph.initializer}
    own = [weight for weight in qdq.graph.initializer if weight.raw_data not in held]

    assert sum(len(weight.raw_data) for weight in own) < 0.01 * sum(map(len, held))
    assert not [weight.name for weight in own if weight.name.endswith(".weight")]


def test_a_clip_does_not_depend_on_the_rest_of_the_batch(models):
    model, _, qdq = models
    tower = VisionTower(model, MEAN, STD)
    clips = np.stack(calibration_clips(tower.num_frames, tower.grid * tower.patch_size, seed=7))

    together, alone = run(qdq, clips[:2]), run(qdq, clips[1:2])

    for several, one in zip(together, alone, strict=True):
        np.testing.assert_allclose(several[1], one[0], atol=1e-4)
