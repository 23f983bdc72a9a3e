"""An export for some devices, and graphs that share a file for equal weights."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers.checkpoints import write_seeded_checkpoint
from xclip_export import export_bundle, exporter, writer
from xclip_export.graph import halve_weights
from xclip_export.graph_specs import VISION_GRAPHS, vision_graphs
from xclip_export.writer import save_graph, share_weights
from xclip_runtime import Bundle, PrecisionUnavailableError, XClip, pack_bundle
from xclip_runtime.cli.export import command
from xclip_runtime.selftest import golden_clip, self_test


def test_without_a_device_an_export_is_for_any():
    assert [graph.name for graph in vision_graphs(["fp32"])] == ["vision_model", "vision_model_cpu"]
    assert set(vision_graphs(["fp32", "fp16", "int8"])) == set(VISION_GRAPHS)


@pytest.mark.parametrize(
    ("devices", "precisions", "names"),
    [
        (["cpu"], ["fp32"], {"vision_model_cpu"}),
        (["cpu"], ["int8"], {"vision_model_int8"}),
        (["cuda"], ["fp32", "fp16"], {"vision_model", "vision_model_fp16"}),
        (["cuda"], ["fp16"], {"vision_model_fp16"}),
        (["openvino"], ["fp32"], {"vision_model"}),
        (["tensorrt"], ["fp16"], {"vision_model"}),
        (["cpu", "openvino"], ["fp32"], {"vision_model", "vision_model_cpu"}),
        (["cpu", "cuda"], ["fp16", "int8"], {"vision_model_fp16", "vision_model_int8"}),
    ],
)
def test_an_export_for_devices_writes_the_graphs_that_they_run(devices, precisions, names):
    assert {graph.name for graph in vision_graphs(precisions, devices)} == names


def test_a_precision_that_no_device_runs_is_refused_before_any_work(tmp_path):
    with pytest.raises(PrecisionUnavailableError, match="fp16 runs on none of cpu: leave it out"):
        export_bundle("/no/checkpoint", tmp_path / "b", precisions=["fp16"], devices=["cpu"])


def test_the_flag_takes_several_devices():
    context = command.make_context("export", ["x", "-o", "y", "--for", "cpu", "cuda", "--precision", "fp32", "int8"])

    assert context.params["target_devices"] == ("cpu", "cuda")
    assert context.params["precisions"] == ("fp32", "int8")


@pytest.fixture(scope="module")
def bundles(tmp_path_factory):
    """A bundle with both fp32 graphs in weight files, and one for the CPU in fp32 with its text tower in fp16."""
    folder = tmp_path_factory.mktemp("bundles")
    shape = {"num_frames": 8, "patch_size": 32, "vision_layers": 2, "text_layers": 1}
    checkpoint = str(write_seeded_checkpoint(folder / "checkpoint", **shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "EXTERNAL_DATA_THRESHOLD", 1_000_000)
        export_bundle(checkpoint, folder / "whole", labels_file="hmdb51", stream=True)
    halved = {"devices": ["cpu"], "text_precision": "fp16", "stream": True}
    export_bundle(checkpoint, folder / "cpu", labels_file="hmdb51", **halved)
    return Bundle.open(folder / "whole"), Bundle.open(folder / "cpu")


def test_the_fp32_graphs_share_one_file_of_weights_and_run(bundles):
    whole = bundles[0]
    files = {graph.name: set(graph.data_files) for graph in whole.graphs}
    sizes = {entry.path: entry.size for entry in whole.files}
    shared = f"onnx/{exporter.SHARED_WEIGHTS}"

    assert files["vision_model"] & files["vision_model_cpu"] == {shared}
    assert sizes[shared] > 0.3 * sum(sizes[name] for name in files["vision_model"])
    for graph in whole.graphs_of("vision"):
        onnx.checker.check_model(str(whole.checked_graph(graph)))
    assert self_test(XClip(whole.path, "cpu")).passed


def test_a_stream_graph_needs_no_file_of_another_precision_or_target(bundles):
    by_name = {graph.name: graph for graph in bundles[0].graphs}

    for kind in ("", "_cpu"):
        stream, vision = by_name[f"stream_model{kind}"], by_name[f"vision_model{kind}"]
        assert set(stream.data_files) - {f"{stream.file}_data"} <= set(vision.data_files)
    assert set(by_name["head_model"].data_files) <= {"onnx/head_model.onnx_data"}


def test_what_is_packed_of_shared_weights_gives_the_same_bits(bundles, tmp_path):
    clip = golden_clip(8, 224)
    packed = pack_bundle(bundles[0].path, tmp_path / "small")

    assert "onnx/vision_model.onnx_data" not in packed.files
    np.testing.assert_array_equal(XClip(packed.bundle, "cpu").logits(clip), XClip(bundles[0].path, "cpu").logits(clip))


def test_an_export_for_the_cpu_is_what_packing_gives(bundles, tmp_path):
    clip = golden_clip(8, 224)
    model = XClip(bundles[1].path, "cpu")

    assert [graph.name for graph in bundles[1].graphs_of("vision")] == ["vision_model_cpu"]
    assert self_test(model).passed
    assert model.window_encoder()
    np.testing.assert_array_equal(model.logits(clip), XClip(bundles[0].path, "cpu").logits(clip))


def test_a_text_tower_in_fp16_is_half_as_large_and_close_and_another_to_label_sets(bundles):
    whole, halved = (bundle.text_graph for bundle in bundles)
    size = [
        sum(e.size for e in b.files if e.path in (g.file, *g.data_files))
        for b, g in zip(bundles, (whole, halved), strict=True)
    ]
    texts = ["a dog running", "a cat"]
    embeds = [XClip(bundle.path, "cpu").text_embeds(texts) for bundle in bundles]

    assert (whole.precision, halved.precision, halved.parity["tolerance"]) == ("fp32", "fp16", 0.05)
    assert 0 < halved.parity["max_abs_logit"] < 0.05
    assert size[1] < 0.55 * size[0]
    assert not np.array_equal(*embeds)
    np.testing.assert_allclose(*embeds, atol=0.01)
    np.testing.assert_array_equal(bundles[0].text_embeds, bundles[1].text_embeds)
    assert bundles[0].text_tower_sha256 != bundles[1].text_tower_sha256


def add_graph(*weights):
    """A graph that adds arrays of 4096 to its input."""
    names = [f"w{index}" for index in range(len(weights))]
    nodes = [onnx.helper.make_node("Sum", ["x", *names], ["y"])]
    value = onnx.helper.make_tensor_value_info
    held = [onnx.numpy_helper.from_array(w, name) for w, name in zip(weights, names, strict=True)]
    body = onnx.helper.make_graph(nodes, "g", [value("x", 1, [4096])], [value("y", 1, [4096])], held)
    return onnx.helper.make_model(body, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9)


def run(path):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": np.zeros(4096, np.float32)})[0]


A, B, C = (np.random.default_rng(seed).random(4096, np.float32) for seed in range(3))


def test_equal_weights_move_to_one_file_and_the_others_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(writer, "EXTERNAL_DATA_THRESHOLD", 1000)
    one, two = tmp_path / "one.onnx", tmp_path / "two.onnx"
    save_graph(add_graph(A, B), one, {})
    save_graph(add_graph(C, A), two, {})
    before = run(one), run(two)

    assert share_weights([one, two], tmp_path / "both") == (tmp_path / "both",)
    assert {file.name: file.stat().st_size for file in tmp_path.iterdir() if file.suffix != ".onnx"} == {
        "both": A.nbytes,
        "one.onnx_data": B.nbytes,
        "two.onnx_data": C.nbytes,
    }
    np.testing.assert_array_equal((run(one), run(two)), before)


def test_graphs_with_nothing_in_common_or_without_weight_files_stay_as_they_are(tmp_path, monkeypatch):
    small = tmp_path / "small.onnx"
    save_graph(add_graph(A), small, {})
    monkeypatch.setattr(writer, "EXTERNAL_DATA_THRESHOLD", 1000)
    for name, weight in (("one", A), ("two", B)):
        save_graph(add_graph(weight), tmp_path / f"{name}.onnx", {})
    before = {file: file.read_bytes() for file in tmp_path.iterdir()}

    for graphs in (["one", "two"], ["one", "small"], ["one"], []):
        assert share_weights([tmp_path / f"{name}.onnx" for name in graphs], tmp_path / "both") == ()
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_weights_beyond_fp16_stay_in_fp32(tmp_path):
    wide = np.full(4096, 1e6, np.float32)
    onnx.save(halve_weights(add_graph(A, wide)), tmp_path / "g.onnx")

    types = {w.name: w.data_type for w in onnx.load(tmp_path / "g.onnx").graph.initializer}
    assert types == {"w0.fp16": onnx.TensorProto.FLOAT16, "w1": onnx.TensorProto.FLOAT}
    np.testing.assert_array_equal(run(tmp_path / "g.onnx"), A.astype(np.float16).astype(np.float32) + wide)
