"""checkpoint in, bundle out."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest

from helpers import kernels
from helpers.checkpoints import write_seeded_checkpoint
from motion_demo.data import training_clip
from motion_demo.labels import SEEN
from xclip_export import export_bundle, exporter
from xclip_export.parity import TOLERANCE, TorchReference
from xclip_runtime import Bundle, XClip
from xclip_runtime.demo import DEMO_BUNDLE, DEMO_VIDEO
from xclip_runtime.errors import BundleError, LabelsError, OutputLockedError, ParityError, VideoNotFoundError
from xclip_runtime.inference.providers import SessionOptions
from xclip_runtime.inference.session import Session
from xclip_runtime.util.locks import locked


@pytest.fixture(scope="module")
def exported(demo_checkpoint, tmp_path_factory):
    stages = []
    target = tmp_path_factory.mktemp("export") / "bundle"
    report = export_bundle(str(demo_checkpoint), target, precisions=["fp32", "fp16", "int8"], progress=stages.append)
    return report, stages


def test_the_bundle_holds_the_documented_files(exported):
    report, _ = exported

    assert {
        "config.json",
        "preprocessor_config.json",
        "labels.json",
        "text_embeds.npy",
        "tokenizer.json",
        "onnx/vision_model.onnx",
        "onnx/vision_model_cpu.onnx",
        "onnx/vision_model_fp16.onnx",
        "onnx/vision_model_int8.onnx",
        "onnx/vision_model_qdq.onnx",
        "onnx/prompt_model.onnx",
        "onnx/text_model.onnx",
    } <= set(report.files)
    assert [problem for _, problem in Bundle.open(report.bundle).problems() if problem] == []


def test_the_checkpoints_own_config_is_untouched(exported, demo_checkpoint):
    report, _ = exported

    assert (report.bundle / "config.json").read_bytes() == (demo_checkpoint / "config.json").read_bytes()


def test_every_graph_has_its_parity_in_the_report_and_in_the_manifest(exported):
    report, _ = exported
    manifest = json.loads((report.bundle / "manifest.json").read_text())

    assert {"vision_model", "prompt_model", "text_model", "chain"} <= set(report.parity)
    for name, graph in manifest["graphs"].items():
        assert graph["parity"] == report.parity[name].to_dict()
        assert graph["parity"]["passed"]
        assert graph["parity"]["tolerance"] == TOLERANCE.get(graph["precision"])


def test_the_report_is_the_documented_json(exported):
    document = json.loads(json.dumps(exported[0].to_dict()))

    assert set(document) == {"bundle", "files", "parity"}
    assert {"max_abs_logit", "cosine", "top1_agreement", "tolerance", "passed"} <= set(document["parity"]["chain"])


def test_progress_is_reported_stage_by_stage(exported):
    assert exported[1][0] == "loading the checkpoint"
    assert exported[1][-1] == "writing the bundle"


@pytest.mark.parametrize("tower", ["vision", "prompt", "text"])
def test_portable_graphs_use_standard_operators_alone(exported, tower):
    model = onnx.load(exported[0].bundle / f"onnx/{tower}_model.onnx")

    assert {opset.domain for opset in model.opset_import} <= {"", "ai.onnx"}
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", ["vision_model", "vision_model_fp16", "prompt_model"])
def test_every_node_that_runs_on_cuda_has_a_kernel_there(exported, name):
    assert kernels.not_on_cuda(onnx.load(exported[0].bundle / f"onnx/{name}.onnx")) == []


@pytest.mark.parametrize("name", ["vision_model", "prompt_model"])
def test_every_node_of_a_portable_graph_is_one_that_tensorrt_documents(exported, name):
    assert kernels.not_in_tensorrt(onnx.load(exported[0].bundle / f"onnx/{name}.onnx")) == []


def test_the_fp16_graph_stays_far_from_the_end_of_its_range(exported):
    parities = exported[0].parity

    assert 0 < parities["vision_model_fp16"].max_abs_activation < 65504 / 8
    assert parities["vision_model"].max_abs_activation is None


def test_the_vision_graph_takes_uint8_frames_and_any_batch(exported):
    graph = onnx.load(exported[0].bundle / "onnx/vision_model.onnx").graph
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*graph.input, *graph.output)
    }

    assert graph.input[0].type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert shapes == {
        "pixel_values": ["batch_size", 32, 224, 224, 3],
        "video_embeds": ["batch_size", 128],
        "img_features": ["batch_size", 49, 128],
    }


def test_the_runtime_gives_transformers_logits_on_the_same_frames(exported, demo):
    model = XClip(exported[0].bundle, device="cpu")
    frames = np.random.default_rng(1).integers(0, 256, (32, 224, 224, 3), dtype=np.uint8)
    expected = TorchReference(demo, model.labels)(frames).logits_per_video[0]

    assert model.graph.name == "vision_model_cpu"
    np.testing.assert_allclose(model.logits(frames), expected, atol=1e-3)


def test_the_embedded_bundle_was_exported_from_the_checkpoint_in_the_tree(exported, demo):
    embedded, fresh = Bundle.open(DEMO_BUNDLE), Bundle.open(exported[0].bundle)

    assert embedded.manifest["source"]["sha256"] == demo.sha256
    assert embedded.labels == fresh.labels
    np.testing.assert_allclose(embedded.text_embeds, fresh.text_embeds, atol=1e-4)


@pytest.mark.parametrize("name", ["vision_model_int8", "vision_model_qdq"])
def test_int8_is_close_and_reported(exported, name):
    parity = exported[0].parity[name]

    assert parity.tolerance is None
    assert 1e-3 < parity.max_abs_logit < 2
    assert parity.p50_abs_logit <= parity.p99_abs_logit <= parity.max_abs_logit


def test_both_int8_graphs_share_their_weights(exported):
    report, _ = exported
    (qdq,) = (graph for graph in Bundle.open(report.bundle).graphs if graph.name == "vision_model_qdq")

    assert qdq.data_files == ("onnx/vision_model_int8.onnx",)
    assert report.files["onnx/vision_model_qdq.onnx"] < 0.1 * report.files["onnx/vision_model_int8.onnx"]


def test_the_portable_int8_graph_gives_the_answers_of_fp32(exported):
    """A few clips of `benchmarks/int8_accuracy.py`."""
    bundle = Bundle.open(exported[0].bundle)
    frames = np.stack([training_clip(seed, SEEN[seed], range(bundle.num_frames))[0] for seed in range(3)])
    tops = []
    for graph in ("vision_model", "vision_model_qdq"):
        session = Session(bundle.path / f"onnx/{graph}.onnx", SessionOptions("cpu"))
        found = session.run({"pixel_values": frames})
        prompt = Session(bundle.path / "onnx/prompt_model.onnx", SessionOptions("cpu"))
        tops.append(prompt.run({**found, "text_embeds": bundle.text_embeds})["logits_per_video"].argmax(axis=1))

    np.testing.assert_array_equal(*tops)


def test_calibration_videos_set_the_int8_scales(demo_checkpoint, exported, tmp_path):
    shutil.copy(DEMO_VIDEO, tmp_path / "typical.ts")

    report = export_bundle(str(demo_checkpoint), tmp_path / "b", precisions=["int8"], fused=False, calibration=tmp_path)

    graphs = [(bundle / "onnx/vision_model_int8.onnx").read_bytes() for bundle in (report.bundle, exported[0].bundle)]
    assert graphs[0] != graphs[1]
    assert "onnx/vision_model_cpu.onnx" not in report.files


def test_a_calibration_folder_without_videos_is_refused(demo_checkpoint, tmp_path):
    with pytest.raises(VideoNotFoundError, match="no videos"):
        export_bundle(str(demo_checkpoint), tmp_path / "b", precisions=["int8"], calibration=tmp_path)


def test_labels_and_template_reach_the_bundle(demo_checkpoint, tmp_path):
    (tmp_path / "labels.txt").write_text("kick\nrun\n")

    report = export_bundle(
        str(demo_checkpoint),
        tmp_path / "b",
        labels_file=str(tmp_path / "labels.txt"),
        template="a video of {}",
        fused=False,
    )

    labels = Bundle.open(report.bundle).labels
    assert labels.names == ("kick", "run")
    assert labels.texts == ("a video of kick", "a video of run")


def test_an_export_needs_no_wheel_of_the_name_onnxruntime(demo_checkpoint, tmp_path, monkeypatch):
    """The wheels for CUDA and OpenVINO have other names and the same module."""

    def version(name):
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return real(name)

    real = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", version)

    report = export_bundle(str(demo_checkpoint), tmp_path / "b", fused=False)

    assert Bundle.open(report.bundle).manifest["tools"]["onnxruntime"] == onnxruntime.__version__


def test_a_checkpoint_without_labels_asks_for_them(small_checkpoint, tmp_path):
    with pytest.raises(LabelsError, match="--labels"):
        export_bundle(str(small_checkpoint), tmp_path / "b")
    assert not (tmp_path / "b").exists()


def test_an_existing_bundle_is_refused_before_the_checkpoint_is_loaded(exported):
    with pytest.raises(BundleError, match="--overwrite"):
        export_bundle("/no/such/checkpoint", exported[0].bundle, labels_file="hmdb51")


def test_a_target_that_is_taken_or_no_place_is_refused_before_the_checkpoint_is_loaded(tmp_path):
    with locked(tmp_path / "b"), pytest.raises(OutputLockedError, match="is being written by process"):
        export_bundle("/no/such/checkpoint", tmp_path / "b")
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        export_bundle("/no/such/checkpoint", tmp_path / "file/b")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_graph_that_fails_the_gate_leaves_nothing(demo_checkpoint, tmp_path, monkeypatch):
    export_tower = exporter.export_tower

    def with_another_mean(*args, mean, **kwargs):
        export_tower(*args, mean=[0.5, *mean[1:]], **kwargs)

    monkeypatch.setattr(exporter, "export_tower", with_another_mean)
    with pytest.raises(ParityError, match=r"vision_model\.onnx is off by"):
        export_bundle(str(demo_checkpoint), tmp_path / "b")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_export_that_is_stopped_from_outside_leaves_nothing(demo_checkpoint, tmp_path, number):
    command = [sys.executable, "-c", "from xclip_runtime.cli import main; main()", "export", demo_checkpoint, "-o"]
    with subprocess.Popen([*command, tmp_path / "bundle"], stderr=subprocess.PIPE, text=True) as export:
        stage = next(line for line in export.stderr if line.startswith("building vision_model"))
        assert any(tmp_path.iterdir()), stage
        export.send_signal(number)
        export.communicate(timeout=120)

    assert export.returncode != 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "shape",
    [
        {"num_frames": 16, "patch_size": 32, "vision_layers": 2, "text_layers": 1},
        {
            "num_frames": 8,
            "patch_size": 14,
            "large": True,
            "image_size": 336,
            "vision_layers": 2,
            "text_layers": 1,
        },
    ],
    ids=["B/32, 16 frames", "L/14, 336 pixels"],
)
def test_other_published_shapes_export(tmp_path, shape):
    checkpoint = write_seeded_checkpoint(tmp_path / "checkpoint", **shape)

    report = export_bundle(str(checkpoint), tmp_path / "bundle", labels_file="hmdb51", fused=False)

    assert all(parity.passed for parity in report.parity.values())
    assert Bundle.open(report.bundle).image_size == shape.get("image_size", 224)


@pytest.mark.full_size
@pytest.mark.timeout(600)
def test_the_full_size_hmdb51_shape_exports(tmp_path):
    """ViT-B/16, 32 frames, 51 labels: the model that the project was made for."""
    checkpoint = write_seeded_checkpoint(tmp_path / "checkpoint")

    report = export_bundle(str(checkpoint), tmp_path / "bundle", labels_file="hmdb51")

    assert all(parity.passed for parity in report.parity.values())
    assert len(Bundle.open(report.bundle).labels.names) == 51
