"""The fp32 graph for ONNX Runtime's CPU provider computes what the vision tower computes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from onnx.helper import make_empty_tensor_value_info

from helpers.nodes import all_nodes
from helpers.small_towers import MEAN, SHAPES, STD, clips, logits, run
from xclip_export.cpu import fused_vision_model
from xclip_export.seeded import outlier_twin, seeded_config, seeded_model
from xclip_export.towers import VisionTower

TOLERANCE = 1e-3  # on logits, the design's for fp32 graphs


@pytest.fixture(scope="module", params=SHAPES.values(), ids=SHAPES.keys())
def model(request):
    return seeded_model(seeded_config(**request.param))


@pytest.fixture(scope="module")
def tower(model):
    return VisionTower(model, MEAN, STD).eval()


@pytest.fixture(scope="module")
def small():
    return VisionTower(seeded_model(seeded_config(**SHAPES["B/32"])), MEAN, STD).eval()


@pytest.mark.parametrize("frames_per_group", [None, 2])
def test_logits_equal_the_towers_for_any_group_size(model, tower, frames_per_group):
    pixels = clips(tower, 2)
    with torch.no_grad():
        expected = logits(model, *tower(torch.from_numpy(pixels)))
    actual = logits(model, *run(fused_vision_model(tower, frames_per_group=frames_per_group), pixels))
    assert np.abs(actual - expected).max() <= TOLERANCE
    assert expected.std() > 1


def test_an_outlier_twin_has_the_same_logits():
    model = outlier_twin(seeded_model(seeded_config(**SHAPES["B/32"])))
    tower = VisionTower(model, MEAN, STD).eval()
    pixels = clips(tower, 2)
    with torch.no_grad():
        expected = logits(model, *tower(torch.from_numpy(pixels)))
    assert np.abs(logits(model, *run(fused_vision_model(tower), pixels)) - expected).max() <= TOLERANCE


def test_a_clip_does_not_depend_on_the_rest_of_the_batch(small):
    model = fused_vision_model(small, frames_per_group=2)
    pixels = clips(small, 3)
    together = run(model, pixels)
    for index in range(3):
        for alone, among in zip(run(model, pixels[index : index + 1]), together, strict=True):
            np.testing.assert_allclose(alone[0], among[index], rtol=0, atol=1e-5)


def test_every_layer_has_a_named_output(small):
    model = fused_vision_model(small, frames_per_group=4)
    names = {name for node in model.graph.node for name in node.output}
    assert {f"layers.{i}.output" for i in range(3)} <= names


def test_smaller_groups_make_no_larger_graph(small):
    counts = [len(all_nodes(fused_vision_model(small, frames_per_group=g).graph)) for g in (8, 1)]
    assert counts[0] == counts[1]


def test_a_batch_takes_the_steps_of_its_clips_one_by_one(small):
    """The bits, not only the values: the shapes of all products are those of a single clip's."""
    model = fused_vision_model(small, frames_per_group=2)
    model.graph.output.append(make_empty_tensor_value_info("layers.0.output"))
    pixels = clips(small, 3)
    (layer,) = run(model, pixels, "layers.0.output")
    for index in range(3):
        (alone,) = run(model, pixels[index : index + 1], "layers.0.output")
        np.testing.assert_array_equal(alone, layer[4 * index : 4 * index + 4])


def test_large_weights_are_stored_as_they_are_multiplied(small):
    model = fused_vision_model(small)
    weights = {w.name for w in model.graph.initializer if np.prod(w.dims) > 10_000}
    nodes = all_nodes(model.graph)
    readers = {node.op_type for node in nodes if weights & set(node.input)}
    assert {"Gemm", "MatMul"} <= readers <= {"Gemm", "MatMul", "Add"}
    gemms = [node for node in nodes if node.op_type == "Gemm"]
    assert not any(attribute.name.startswith("trans") for node in gemms for attribute in node.attribute)


def test_attention_has_no_input_that_would_turn_flash_attention_off(small):
    attentions = [node for node in all_nodes(fused_vision_model(small).graph) if node.op_type == "MultiHeadAttention"]
    assert len(attentions) == 3 + 2 + 1
    assert all(len(node.input) == 3 and len(node.output) == 1 for node in attentions)


@pytest.mark.parametrize("frames_per_group", [0, 3, 16])
def test_a_group_that_does_not_divide_the_clip_is_refused(small, frames_per_group):
    with pytest.raises(ValueError, match="choose a divisor"):
        fused_vision_model(small, frames_per_group=frames_per_group)
