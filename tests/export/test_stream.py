"""The stream graphs: exact where all frames are new, and the same as caching in torch where some are not."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from helpers.small_towers import MEAN, SHAPES, STD, clips, run
from xclip_export.calibration import observe
from xclip_export.cpu import fused_vision_model
from xclip_export.exporter import export_bundle
from xclip_export.fp16 import fp16_vision_model
from xclip_export.int8 import Int8VisionGraph
from xclip_export.qdq import QdqVisionGraph
from xclip_export.seeded import seeded_config, seeded_model
from xclip_export.stream import head_model, stream_model
from xclip_export.stream_parity import StreamGate, run_new_frames
from xclip_export.towers import VisionTower
from xclip_runtime import Bundle, Reuse, XClip
from xclip_runtime.errors import ParityError
from xclip_runtime.inference.cached_frames import encode_windows, stream_feeds

GRAPHS = [("fp32", "any"), ("fp32", "cpu"), ("int8", "cpu"), ("int8", "any"), ("fp16", "cuda")]
SMALLEST = 1e-4  # of outputs of about 1, between graphs of the same arithmetic


@pytest.fixture(scope="module")
def tower():
    return VisionTower(seeded_model(seeded_config(**SHAPES["B/32"])), MEAN, STD).eval()


@pytest.fixture(scope="module")
def observations(tower):
    return observe(tower, clips(tower, 2, seed=5))


@pytest.fixture(scope="module")
def head(tower):
    return open_session(head_model(tower))


@pytest.fixture(scope="module", params=GRAPHS, ids=" ".join)
def graph(request, tower, observations):
    """Precision, session of the stream graph, and the exact graph."""
    precision, target = request.param
    exact = {
        "fp32": fused_vision_model,
        "fp16": fp16_vision_model,
        "int8": lambda tower: (QdqVisionGraph if target == "any" else Int8VisionGraph)(tower, observations).build(),
    }[precision](tower)
    return precision, open_session(stream_model(tower, precision, target, observations)), exact


def open_session(model):
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


def run_stream(session, frames, cached):
    names = ["class_tokens", "frame_embeds", "patch_features"]
    return dict(zip(names, session.run(names, stream_feeds([frames], [cached])), strict=True))


def nothing(tower):
    return np.zeros((len(tower.layers) - 1, 0, tower.embed_dim), np.float32)


def followed_by(first, new, count):
    return {name: np.concatenate([first[name][count:], new[name]]) for name in ("frame_embeds", "patch_features")}


def run_head(head, window):
    return head.run(
        ["video_embeds", "img_features"],
        {name: window[name][None] for name in ("frame_embeds", "patch_features")},
    )


def test_a_window_of_new_frames_is_what_the_exact_graph_computes(graph, tower, head):
    precision, session, exact = graph
    clip = clips(tower, 1)

    outputs = run_head(head, run_stream(session, clip[0], nothing(tower)))

    for found, wanted in zip(outputs, run(exact, clip), strict=True):
        np.testing.assert_allclose(found, wanted, atol=0.01 if precision == "fp16" else SMALLEST)


@pytest.mark.parametrize("new", [1, 5])
def test_a_cached_window_is_what_the_same_caching_in_torch_computes(graph, tower, head, new):
    precision, session, _ = graph
    one, two = clips(tower, 2)
    first = run_stream(session, one, nothing(tower))
    second = run_stream(session, two[:new], first["class_tokens"][:, new:])
    found = run_head(head, followed_by(first, second, new))

    there = run_new_frames(tower, one, torch.from_numpy(nothing(tower)))
    there = there.followed_by(run_new_frames(tower, two[:new], there.class_tokens[:, new:]))
    with torch.no_grad():
        wanted = tower.video_embeds(there.last[:, 0]), tower.img_features(there.last[:, 1:])
    exact = run(fused_vision_model(tower), np.concatenate([one[new:], two[:new]])[None])

    tolerance = {"fp32": SMALLEST, "fp16": 0.02, "int8": 0.5}[precision]
    for output, reference in zip(found, wanted, strict=True):
        np.testing.assert_allclose(output, reference.numpy(), atol=tolerance)
    # It is an approximation: otherwise this test could not tell the two apart.
    assert np.abs(wanted[0].numpy() - exact[0]).max() > 5 * SMALLEST


def test_streams_that_run_together_compute_what_each_computes_alone(graph, tower):
    """Cameras of one model, each with other new frames: some, one, all."""
    precision, session, _ = graph
    one, two, three = clips(tower, 3)
    cached = (
        run_stream(session, one, nothing(tower))["class_tokens"],
        run_stream(session, two, nothing(tower))["class_tokens"],
    )
    new = [three[:2], one[:1], three]
    kept = [cached[0][:, 2:], cached[1][:, 1:], nothing(tower)]
    names = ["class_tokens", "frame_embeds", "patch_features"]

    together = dict(zip(names, session.run(names, stream_feeds(new, kept)), strict=True))

    starts = np.cumsum([0, *map(len, new)])
    for start, stop, frames, tokens in zip(starts, starts[1:], new, kept, strict=False):
        for name, alone in run_stream(session, frames, tokens).items():
            found = together[name][:, start:stop] if name == "class_tokens" else together[name][start:stop]
            np.testing.assert_allclose(found, alone, atol=0.02 if precision == "fp16" else SMALLEST)


def test_the_order_of_the_cached_frames_does_not_matter(graph, tower):
    precision, session, _ = graph
    one, two = clips(tower, 2)
    cached = run_stream(session, one, nothing(tower))["class_tokens"][:, 2:]

    outputs = [run_stream(session, two[:2], part) for part in (cached, np.ascontiguousarray(cached[:, ::-1]))]

    for name, value in outputs[0].items():
        np.testing.assert_allclose(value, outputs[1][name], atol=0.02 if precision == "fp16" else SMALLEST)


def test_the_portable_graphs_take_standard_operators_without_arithmetic_of_shapes(tower, observations):
    int8 = stream_model(tower, "int8", "any", observations)
    for model in (stream_model(tower, "fp32", "any", {}), int8, head_model(tower)):
        assert {node.domain for node in model.graph.node} == {""}
        assert not {"Shape", "Scan", "Loop", "If"} & {node.op_type for node in model.graph.node}


@pytest.mark.parametrize(("precision", "target"), [("fp32", "cpu"), ("int8", "cpu"), ("fp16", "cuda")])
def test_attention_takes_the_kernel_of_the_exact_graph_which_has_no_mask(tower, observations, precision, target):
    model = stream_model(tower, precision, target, observations)
    mixed = [node for node in model.graph.node if node.op_type == "MultiHeadAttention"]

    assert mixed
    assert {len(node.input) for node in mixed} == {3}


def test_the_graph_for_cuda_computes_nothing_from_shapes(tower):
    assert "Shape" not in {node.op_type for node in stream_model(tower, "fp16", "cuda", {}).graph.node}


@pytest.fixture(scope="module")
def bundle(small_checkpoint, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundles") / "small"
    export_bundle(str(small_checkpoint), folder, labels_file="hmdb51", precisions=("fp32", "int8"), stream=True)
    return Bundle.open(folder)


def test_a_bundle_has_a_stream_graph_beside_each_vision_graph_and_a_head(bundle):
    names = {graph.name for graph in bundle.graphs}

    assert {"stream_model", "stream_model_cpu", "stream_model_int8", "stream_model_qdq", "head_model"} <= names
    for graph in bundle.graphs:
        assert graph.parity["passed"]


def test_sixteen_cameras_that_run_together_get_what_each_gets_alone(bundle):
    """Each with its own picture, its own number of new frames and, once, a gap."""
    model = XClip(bundle.path, device="cpu", precision="fp32")
    random, size, cameras = np.random.default_rng(0), bundle.image_size, 16
    scenes = random.integers(0, 256, (cameras, 24, size, size, 3), np.uint8)
    alone, together = ([model.window_encoder(Reuse(refresh=0, cut=1.0)) for _ in range(cameras)] for _ in range(2))
    for turn in range(3):
        windows = [window_of(scenes[c], turn * (1 + c % 4), gap=(c, turn) == (5, 1)) for c in range(cameras)]
        wanted = [encoder.encode(window) for encoder, window in zip(alone, windows, strict=True)]
        found = encode_windows(list(zip(together, windows, strict=True)))

        for c, ((features, encoding), (own, own_encoding)) in enumerate(zip(found, wanted, strict=True)):
            assert encoding == own_encoding
            assert encoding.new_frames == (bundle.num_frames if not turn or (c, turn) == (5, 1) else 1 + c % 4)
            np.testing.assert_allclose(model.label_logits(features), model.label_logits(own), atol=SMALLEST)


def window_of(scene, start, *, gap):
    numbers = tuple(range(start, start + 8))
    return SimpleNamespace(sampled=numbers, prepared=tuple(scene[n] for n in numbers), gap=gap or None)


def test_their_weights_are_those_of_the_other_graphs(bundle):
    sizes = {entry.path: entry.size for entry in bundle.files}
    for graph in bundle.graphs:
        if graph.tower != "stream":
            continue
        shared = [path for path in graph.data_files if "vision_model" in path]
        assert shared
        assert sizes[graph.file] < 0.1 * sum(sizes[path] for path in shared)
        bundle.checked_graph(graph)
        onnx.checker.check_model(str(bundle.path / graph.file))


def hear_the_cached_tokens_of_another_layer(node):
    if node.output[0].endswith("message.cached"):
        node.input[1] = "layer.0"


def hear_the_frames_of_other_streams(node):
    if node.output[0].endswith((".message.key", ".message.value")):
        node.input[1] = "query_rows"


@pytest.mark.parametrize("spoil", [hear_the_cached_tokens_of_another_layer, hear_the_frames_of_other_streams])
def test_a_graph_that_is_not_the_same_caching_is_refused(demo, tmp_path, spoil):
    from xclip_export.parity import Gate, parity_clips
    from xclip_export.writer import save_graph

    tower = VisionTower(demo.model, demo.mean, demo.std).eval()
    model = stream_model(tower, "fp32", "any", {})
    for node in model.graph.node:
        spoil(node)
    for name, built in (("stream", model), ("head", head_model(tower)), ("vision", fused_vision_model(tower))):
        save_graph(built, tmp_path / f"{name}.onnx", {})
    gate = Gate(demo, ["a red shape moving left", "a blue shape standing still"], parity_clips(32, 224))

    with pytest.raises(ParityError, match="stream"):
        StreamGate(gate, tower, tmp_path / "head.onnx").check(
            tmp_path / "stream.onnx", tmp_path / "vision.onnx", "fp32"
        )
