"""The gate lets nothing through that differs from the checkpoint."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from xclip_export.optimum_config import export_tower
from xclip_export.parity import Gate, largest_activation, parity_clips
from xclip_runtime.errors import ParityError

TEXTS = ["a red shape growing", "a blue shape circling", "a green shape bouncing"]


@pytest.fixture(scope="module")
def gate(demo):
    return Gate(demo, TEXTS, parity_clips(demo.num_frames, demo.image_size))


@pytest.fixture(scope="module")
def graphs(demo, tmp_path_factory):
    folder = tmp_path_factory.mktemp("graphs")
    for tower in ("vision", "prompt", "text"):
        export_tower(demo.model, tower, folder / f"{tower}.onnx", mean=demo.mean, std=demo.std)
    return folder


def edited(path, tmp_path, edit):
    """A copy of a graph in which ``edit`` has changed an initializer; returns its path."""
    model = onnx.load(path)
    edit({init.name: init for init in model.graph.initializer}, model)
    onnx.save(model, tmp_path / path.name)
    return tmp_path / path.name


def scale(initializer, factor):
    initializer.CopyFrom(
        onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(initializer) * np.float32(factor), initializer.name)
    )


def test_the_clips_are_noise_real_frames_and_nearly_the_same_frames():
    noise, real, near = parity_clips(8, 224).astype(int)

    assert noise.std() > real.std() > 20
    assert np.abs(np.diff(real, axis=0)).mean() < np.abs(np.diff(noise, axis=0)).mean()
    assert 0 < np.abs(near - real).max() <= 2
    assert (np.abs(near - real).max(axis=(1, 2, 3)) > 0).sum() == 1


def test_the_clips_are_the_same_every_time():
    np.testing.assert_array_equal(parity_clips(8, 224), parity_clips(8, 224))


def test_the_reference_is_transformers_forward(gate, demo):
    import torch
    from transformers import VideoMAEImageProcessor

    clip = parity_clips(32, 224)[1]
    processor = VideoMAEImageProcessor(
        do_resize=False, do_center_crop=False, image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225]
    )
    with torch.no_grad():
        expected = demo.model(
            input_ids=demo.tokenize(TEXTS), pixel_values=processor(list(clip), return_tensors="pt")["pixel_values"]
        )

    np.testing.assert_allclose(gate.reference.logits_per_video[1], expected.logits_per_video[0], atol=1e-4)


def test_exported_graphs_pass(gate, graphs):
    vision, outputs = gate.check_vision(graphs / "vision.onnx", "fp32")
    text, embeds = gate.check_text(graphs / "text.onnx")
    prompt = gate.check_prompt(graphs / "prompt.onnx")
    chain = gate.check_chain(graphs / "prompt.onnx", outputs, embeds)

    for parity in (vision, text, prompt, chain):
        assert parity.passed
        assert parity.max_abs_logit < 1e-4
        assert parity.top1_agreement == 1


@pytest.mark.parametrize("layer", [0, 3])
def test_a_layer_that_moved_is_named(gate, graphs, tmp_path, layer):
    def damage(initializers, model):
        biased = next(n for n in model.graph.node if n.name == f"/layers.{layer}/mlp/fc2/Add")
        scale(initializers[next(name for name in biased.input if name in initializers)], 1.5)

    broken = edited(graphs / "vision.onnx", tmp_path, damage)

    with pytest.raises(ParityError, match=rf"layers\.{layer}\b"):
        gate.check_vision(broken, "fp32")


def test_a_fault_behind_the_layers_is_said_to_be_there(gate, graphs, tmp_path):
    def damage(initializers, _):
        scale(initializers["mit.position_embedding"], 1.5)

    with pytest.raises(ParityError, match="after the last encoder layer"):
        gate.check_vision(edited(graphs / "vision.onnx", tmp_path, damage), "fp32")


def test_a_graph_that_does_not_see_its_input_is_refused(gate, graphs, tmp_path):
    def blind(initializers, model):
        for output in model.graph.output:
            producer = next(n for n in model.graph.node if output.name in n.output)
            producer.output[0] = f"{output.name}_seen"
            model.graph.node.append(onnx.helper.make_node("Mul", [f"{output.name}_seen", "zero"], [f"{output.name}_z"]))
            model.graph.node.append(onnx.helper.make_node("Add", [f"{output.name}_z", "one"], [output.name]))
        for name, value in (("zero", 0.0), ("one", 1.0)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))

    with pytest.raises(ParityError, match="ignores its input"):
        gate.check_vision(edited(graphs / "vision.onnx", tmp_path, blind), "fp32")


def test_a_prompt_graph_with_another_scale_is_refused(gate, graphs, tmp_path):
    def damage(initializers, _):
        scale(initializers["tower.logit_scale"], 1.001)

    with pytest.raises(ParityError, match="off by"):
        gate.check_prompt(edited(graphs / "prompt.onnx", tmp_path, damage))


def test_a_text_graph_with_moved_positions_is_refused(gate, graphs, tmp_path):
    def damage(initializers, _):
        scale(initializers["text_model.embeddings.position_embedding.weight"], 1.05)

    with pytest.raises(ParityError, match="text encoder"):
        gate.check_text(edited(graphs / "text.onnx", tmp_path, damage))


def test_nan_never_passes(gate, graphs, tmp_path):
    def damage(initializers, _):
        scale(initializers["mit.position_embedding"], np.nan)

    with pytest.raises(ParityError):
        gate.check_vision(edited(graphs / "vision.onnx", tmp_path, damage), "fp32")


HALVES = """
<ir_version: 9, opset_import: ["" : 18]>
vision (uint8[batch_size,2] pixel_values) => (float[batch_size,2] video_embeds)
{
    wide = Cast<to = 1>(pixel_values)
    half = Cast<to = 10>(wide)
    first = OPERATOR(half, half)
    after = Mul(half, half)
    video_embeds = Cast<to = 1>(after)
}
"""


def half_graph(folder, operator):
    path = folder / "halves.onnx"
    onnx.save(onnx.parser.parse_model(HALVES.replace("OPERATOR", operator)), path)
    return path


def test_the_largest_fp16_value_of_all_clips_is_found(tmp_path):
    clips = np.array([[3, 7], [2, 5]], np.uint8)

    assert largest_activation(half_graph(tmp_path, "Add"), clips) == 49


@pytest.mark.parametrize(
    "clips",
    [[[1, 0]], [[0, 1]], [[1, 0], [1, 1]], [[1, 1], [1, 0]]],
    ids=["second value", "first value", "finite clip after", "finite clip before"],
)
def test_the_first_fp16_tensor_that_is_not_finite_is_named(tmp_path, clips):
    """0 / 0 is NaN, which compares as neither larger nor smaller."""
    with pytest.raises(ParityError, match="in first, too close"):
        largest_activation(half_graph(tmp_path, "Div"), np.array(clips, np.uint8))


def test_an_fp16_value_over_half_the_range_is_named(tmp_path):
    with pytest.raises(ParityError, match="in after"):
        largest_activation(half_graph(tmp_path, "Add"), np.array([[3, 250]], np.uint8))
