"""The int8 graph stays close to the vision tower, on outlier twins as well."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from helpers.nodes import all_nodes
from xclip_export.calibration import Observation, calibration_clips
from xclip_export.int8 import affine, balance, int8_vision_model, quantized
from xclip_export.seeded import outlier_twin, seeded_config, seeded_model
from xclip_export.towers import PromptTower, VisionTower
from xclip_export.weights import Linear

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = {"num_frames": 8, "patch_size": 16, "image_size": 64, "vision_layers": 3, "text_layers": 1}
LABELS = 51


def vision_tower(model):
    return VisionTower(model, MEAN, STD).eval()


def session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run(model, clips):
    return session(model).run(["video_embeds", "img_features"], {"pixel_values": clips})


@torch.no_grad()
def logits(model, video_embeds, img_features):
    texts = torch.randn(LABELS, video_embeds.shape[1], generator=torch.Generator().manual_seed(2))
    prompt = PromptTower(model).eval()
    return prompt(torch.as_tensor(video_embeds), torch.as_tensor(img_features), texts).numpy()


@pytest.fixture(scope="module")
def clips():
    return np.stack(calibration_clips(SHAPE["num_frames"], SHAPE["image_size"], seed=7))


@pytest.fixture(scope="module")
def model():
    return seeded_model(seeded_config(**SHAPE))


@pytest.fixture(scope="module")
def expected(model, clips):
    with torch.no_grad():
        return logits(model, *vision_tower(model)(torch.from_numpy(clips)))


@pytest.fixture(scope="module")
def int8(model):
    return int8_vision_model(vision_tower(model))


def test_logits_stay_within_a_fraction_of_their_spread(model, int8, clips, expected):
    errors = np.abs(logits(model, *run(int8, clips)) - expected)
    assert np.median(errors) < 0.03 * expected.std()
    assert errors.max() < 0.2 * expected.std()


def test_an_outlier_twin_is_no_harder(model, int8, clips, expected):
    twin = outlier_twin(seeded_model(seeded_config(**SHAPE)), gain=60.0)
    errors = [
        np.abs(logits(m, *run(graph, clips)) - expected)
        for m, graph in ((model, int8), (twin, int8_vision_model(vision_tower(twin))))
    ]
    assert np.median(errors[1]) < 1.5 * np.median(errors[0])


def test_a_clip_does_not_depend_on_the_rest_of_the_batch(int8, clips):
    together = run(int8, clips)
    for index in range(len(clips)):
        for alone, among in zip(run(int8, clips[index : index + 1]), together, strict=True):
            np.testing.assert_allclose(alone[0], among[index], rtol=0, atol=1e-5)


def test_large_weights_are_int8(int8):
    large = {w.name: w.data_type for w in int8.graph.initializer if np.prod(w.dims) >= 768 * 768}
    kept = {name for name, kind in large.items() if kind == 1}
    assert all(name.startswith("mit.") or name.endswith(("message.fc.weight",)) for name in kept)
    assert len(large) > 3 * 6


def test_no_range_is_searched_at_run_time(int8):
    operators = {node.op_type for node in all_nodes(int8.graph)}
    assert "QuantizeLinear" in operators
    assert not any(name.startswith("Dynamic") for name in operators)


def test_pixels_enter_the_patch_embedding_unrounded(int8):
    constants = {w.name: onnx_value(w) for w in int8.graph.initializer if w.name.startswith("pixel.")}
    assert constants == {"pixel.scale": 1.0, "pixel.zero_point": 0}


def onnx_value(initializer):
    from onnx import numpy_helper

    return numpy_helper.to_array(initializer).item()


def test_every_layer_has_a_named_output(int8):
    names = {name for node in int8.graph.node for name in node.output}
    assert {f"layers.{i}.output" for i in range(3)} <= names


def test_the_users_clips_set_the_scales(model):
    tower = vision_tower(model)
    black = np.zeros((1, 8, 64, 64, 3), np.uint8)
    scales = [
        {w.name: onnx_value(w) for w in graph.graph.initializer if w.name.endswith("fc2.scale")}
        for graph in (int8_vision_model(tower, calibration=list(black)), int8_vision_model(tower))
    ]
    assert len(scales[0]) == 3
    assert all(scales[0][name] < scales[1][name] for name in scales[0])


def test_the_same_seed_gives_the_same_graph(model):
    graphs = [int8_vision_model(vision_tower(model)).SerializeToString() for _ in range(2)]
    assert graphs[0] == graphs[1]


def test_codes_cover_what_was_observed_and_hold_zero_exactly():
    x = affine(Observation(np.array([-1.0, 0.5], np.float32), np.array([2.0, 3.0], np.float32)))
    assert x.scale == pytest.approx(4 / 255)
    assert (0 - float(x.zero_point)) * x.scale == pytest.approx(-1.0, abs=float(x.scale))
    positive = affine(Observation(np.array([0.5], np.float32), np.array([3.0], np.float32)))
    assert positive.zero_point == 0


def test_weights_are_rounded_to_the_nearest_code_of_their_column():
    weight = np.random.default_rng(0).standard_normal((32, 8)).astype(np.float32) * np.arange(1, 9, dtype=np.float32)
    codes = quantized(Linear(weight, None))
    assert 80 < np.abs(codes.codes).max() <= 127
    assert (np.abs(codes.codes * codes.scales - weight) <= 0.501 * codes.scales).all()


def test_a_column_with_one_large_weight_uses_all_its_codes():
    weight = np.zeros((4, 1), np.float32)
    weight[2] = -3.0
    assert quantized(Linear(weight, None)).codes.ravel().tolist() == [0, 0, -127, 0]


weights = arrays(
    np.float32,
    st.tuples(st.integers(1, 9), st.integers(1, 5)),
    elements=st.floats(-1e4, 1e4, width=32, allow_subnormal=False),
)


@given(weights)
def test_sums_of_two_products_fit_in_16_bits_whatever_the_activations(weight):
    # What instructions without VNNI (vpmaddubsw) do: rows 2i and 2i + 1, each times a code of at most 255.
    codes = quantized(Linear(weight, None)).codes.astype(int)
    pairs = np.pad(codes, ((0, len(codes) % 2), (0, 0))).reshape(-1, 2, codes.shape[1])
    assert 255 * np.maximum(pairs, 0).sum(axis=1).max() <= 32767
    assert 255 * np.minimum(pairs, 0).sum(axis=1).min() >= -32768


def test_no_stored_weight_of_the_graph_can_saturate(int8):
    from onnx import numpy_helper

    matrices = [numpy_helper.to_array(w).astype(int) for w in int8.graph.initializer if w.name.endswith(".weight")]
    matrices = [w for w in matrices if np.abs(w).max() > 1]
    assert len(matrices) > 3 * 6
    for pairs in (w.reshape(-1, 2, w.shape[1]) for w in matrices):
        assert 255 * np.maximum(pairs, 0).sum(axis=1).max() <= 32767
        assert 255 * np.minimum(pairs, 0).sum(axis=1).min() >= -32768


def test_both_products_of_attention_are_int8_and_those_of_the_messages_are_not(int8):
    operators = Counter(node.op_type for node in all_nodes(int8.graph))
    layers, messages, mit = 3, 2, 1
    assert operators["QLinearMatMul"] == operators["QGemm"] == layers
    assert operators["MultiHeadAttention"] == messages + mit


def test_balancing_undoes_what_an_outlier_twin_does():
    rng = np.random.default_rng(0)
    bound = rng.uniform(1, 3, 16).astype(np.float32)
    weight = rng.standard_normal((16, 4)).astype(np.float32)
    gain = np.ones(16, np.float32)
    gain[3] = 50
    factor = balance(Observation(-bound, bound), Linear(weight, None))
    twin = balance(Observation(-bound * gain, bound * gain), Linear(weight / gain[:, None], None))
    ratio = (bound * gain / twin) / (bound / factor)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
